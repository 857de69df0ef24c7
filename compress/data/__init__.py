"""One file per data set: `Config` and `load(config) -> Data`; a file's name is its name in a recipe."""
