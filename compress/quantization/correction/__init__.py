"""Corrections that reduce quantization error: equalization, rounding, biases."""
