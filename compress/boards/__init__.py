"""Boards: inventory and deployment over SSH."""
