"""Which INT8 a target wants, and the ranges to make it from; the graph is written by `export.quantize`."""
