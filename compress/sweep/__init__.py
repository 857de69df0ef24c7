"""Sweeps: run a recipe with many settings and find the Pareto front."""
