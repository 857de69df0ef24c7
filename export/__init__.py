"""Export of PyTorch networks to files for inference: one module per format or graph rewrite."""
