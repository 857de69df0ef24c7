"""One file per data set: `Config` and `load(config) -> Data`; the file's name is the data set's."""
