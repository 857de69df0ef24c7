"""Structured pruning: which channels go together, what they are worth, what they cost, and cutting them."""
