"""From a torch network to files that ship: one file per format."""
