"""What runs on the board: artifacts, sessions and the one clock, with numpy and one inference engine."""
