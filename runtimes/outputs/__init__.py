"""Outputs of model files: their kinds, decoded detections, and the comparison of two files."""
