"""One file per stage: `Config` and `run(model, context, config) -> nn.Module`; a file's name is its name in a recipe."""
