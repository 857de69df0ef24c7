"""Verdicts: statistics, gate, comparison, formats for CI."""
