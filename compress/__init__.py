"""Make image classifiers small and fast for edge devices, and verify the result."""

__version__ = "0.2.0"
