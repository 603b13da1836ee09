"""Tests of app.score."""
