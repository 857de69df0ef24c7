"""Search for the best quantization: candidates, their comparison, and operators that revert to float."""
