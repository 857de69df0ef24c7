"""Recipes: YAML files, validated against typed sections."""
