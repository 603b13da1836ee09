"""Tests of training and export, on tiny data sets made here."""
