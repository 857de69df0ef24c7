"""Make image classifiers small and fast for edge devices, and prove it."""

__version__ = "0.2.0"
