"""Measurements, always as ratios within one run. Never imported by app or training."""
