"""Structured pruning: channel groups, importance, cost models, width search, and channel removal."""
