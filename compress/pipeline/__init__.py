"""Run a recipe: cached steps, artifacts, run folder."""
