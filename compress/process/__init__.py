"""Process-level services: console, signals, distributed training, tracking."""
