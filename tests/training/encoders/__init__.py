"""Tests of the encoders, tiny ones, and of what every encoder promises."""
