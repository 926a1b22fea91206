"""Which recipe is trained: by what X is, unless it is named."""

from __future__ import annotations

from collections.abc import Iterable

from mutualign.recipes import Recipe, load_recipe

# Always for vectors, and for them where no recipe is named: the published lengths and rates are for 60,000 images.
_VECTORS = ("backbone=mlp", "precision=float32")
_VECTORS_BY_DANN = tuple(
    f"stages.0.{setting}"
    for setting in ("epochs=10", "epoch_steps=100", "learning_rate=1e-3", "schedule=one_cycle", "options.reversal=ramp")
)


def choose_recipe(name: str | None, overrides: Iterable[str], vectors: bool) -> Recipe:
    """The recipe of that name or path; without one `fast` for images, and a short `dann` for feature vectors.

    Raises ValueError for a recipe that makes strong views, if it is for vectors, MutualignError for one that is not
    there or cannot be changed so.
    """
    defaults = (*_VECTORS, *(_VECTORS_BY_DANN if name is None else ())) if vectors else ()
    recipe = load_recipe(name or ("dann" if vectors else "fast"), (*defaults, *overrides))
    if vectors and any(stage.method == "mutual_align" for stage in recipe.stages):
        raise ValueError(
            f"recipe {recipe.name} turns and recolours images; X of two axes is feature vectors\n"
            '  do       take "mani", "dann" or "source_only", or leave the recipe out\n'
            "  do       or, if the rows are flattened images, give image_shape=(height, width, channels)"
        )
    return recipe
