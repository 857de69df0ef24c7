"""Functions of the Python API, one module each; the commands call the same functions."""
