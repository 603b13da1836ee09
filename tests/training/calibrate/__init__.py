"""Tests of training/calibrate."""
