"""One file per family: `Config`, `build(config, num_classes) -> nn.Module`, `published(config) -> str | None`."""
