"""Encoders: prepared arrays of one modality to a fixed number of vectors, and one pooled, a row."""
