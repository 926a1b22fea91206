"""Recipes: what is trained, as data."""

from mutualign.recipes.recipe import Recipe, Stage, load_recipe, parse_recipe, recipe_names

__all__ = ["Recipe", "Stage", "load_recipe", "parse_recipe", "recipe_names"]
