"""Recipes: YAML files, checked against typed sections."""
