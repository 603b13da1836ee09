"""Tests of the loaders of public data."""
