"""One file per family: `Config`, `build(config, num_classes) -> nn.Module` and `published(config)` (see weights)."""
