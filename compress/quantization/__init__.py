"""INT8 quantization: schemes of targets, calibration, error correction and the choice of layers that stay float."""
