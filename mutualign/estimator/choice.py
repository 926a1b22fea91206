"""The recipe of a fit: the named one, or a default that depends on what X is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mutualign.recipes import Recipe, load_recipe

VECTORS = ("backbone=mlp", "precision=float32")  # for vectors, unless the recipe is made for features
# For vectors if no recipe is named: the published lengths and rates are for 60,000 images.
SHORT_DANN = tuple(
    f"stages.0.{setting}"
    for setting in (
        "epochs=10",
        "epoch_steps=100",
        "optim.lr=1e-3",
        "optim.schedule=one_cycle",
        "options.reversal=ramp",
    )
)


def choose_recipe(name: str | None, overrides: Iterable[str], vectors: bool) -> Recipe:
    """Load a recipe by name or path; by default `fast` for images, and a short `dann` for feature vectors.

    Raises ValueError if the recipe augments images but X is vectors, MutualignError for an unknown recipe or override.
    """
    recipe = load_recipe(name or ("dann" if vectors else "fast"), () if vectors else overrides)
    if recipe.features:  # arrays are seen in one view, and vectors are features already
        recipe = load_recipe(name or "", overrides)
        one_view = replace(recipe, views=1)
        return replace(one_view, features="", backbone_weights="") if vectors else one_view
    if vectors:
        defaults = (*VECTORS, *(SHORT_DANN if name is None else ()))
        recipe = load_recipe(name or "dann", (*defaults, *overrides))
    if vectors and recipe.needs_images:
        raise ValueError(
            f"recipe {recipe.name} turns and recolours images; X of two axes is feature vectors\n"
            '  hint:    take "mani", "dann" or "source_only", or leave the recipe out;\n'
            "           or, if the rows are flattened images, give image_shape=(height, width, channels)"
        )
    return recipe
