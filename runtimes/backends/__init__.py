"""Inference runtimes, one module each: `load(artifact, target) -> Session`; the engine is imported in functions."""
