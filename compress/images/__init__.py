"""Data sets: samples, splits, archives, decoding checks."""
