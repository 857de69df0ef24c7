"""One file per inference runtime; each holds `load(artifact, target) -> Session` and imports its engine inside."""
