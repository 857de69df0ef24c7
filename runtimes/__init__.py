"""The part that runs on a board: artifacts, sessions and measuring, with NumPy and one inference engine."""
