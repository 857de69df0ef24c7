"""One file per stage: `Config` and `run(model, context, config) -> nn.Module`; its name is its name in a recipe."""
