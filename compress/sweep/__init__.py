"""Sweeps: search over recipe settings."""
