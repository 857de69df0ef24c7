"""Quantization-aware training: the exported graph as a trainable network."""
