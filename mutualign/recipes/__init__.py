"""Recipes: what is trained, as data."""

from mutualign.recipes.recipe import OptimConfig, Recipe, Stage, load_recipe, parse_recipe, recipe_names

__all__ = ["OptimConfig", "Recipe", "Stage", "load_recipe", "parse_recipe", "recipe_names"]
