"""One file per stage: `Config` and `run(network, context, config) -> nn.Module`; the file's name is the stage's."""
