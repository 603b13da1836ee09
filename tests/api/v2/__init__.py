"""Tests of the floor of this name."""
