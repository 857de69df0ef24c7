"""Inputs of networks: find out what a file takes, and rewrite it to take normalised float32 (N, C, H, W)."""
