"""Tests of every fusion: the laws that all keep, their definitions by hand, and their export."""
