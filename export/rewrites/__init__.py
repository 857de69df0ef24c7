"""Rewrites of float32 graphs to operators that have integer kernels; outputs do not change."""
