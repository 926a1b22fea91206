"""Equal conditions: one recipe per method, and all of them differ in the method only."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from mutualign.errors import MutualignError
from mutualign.methods import METHODS
from mutualign.recipes.recipe import SOURCE_ONLY, Recipe, Stage, load_recipe, recipe_names

ALL = "all"  # for recipes on the command line: every method, in the conditions of a recipe
CONDITIONS, PHOTO_CONDITIONS = "equal", "equal_photos"


def equal_recipes(conditions: Recipe) -> tuple[Recipe, ...]:
    """Return one recipe per registered method, in the conditions of a recipe of one stage; source only comes first.

    Network, input, precision, optimiser, batch size and epochs are those of the conditions. The method, its settings
    and the stages before it are those of the recipe that demonstrates the method (`demonstration`). Several stages
    share the epochs in proportion to their lengths there, and keep their learning rates relative to the first stage.
    Methods that need images are left out on features. Raises MutualignError for conditions of several stages.
    """
    if len(conditions.stages) != 1:
        raise MutualignError(f"recipe {conditions.name}: equal conditions are a recipe of one stage")
    shown = {name: demonstration(name, on_features=bool(conditions.features)) for name in METHODS}
    names = [name for name, recipe in shown.items() if not (conditions.features and recipe.needs_images)]
    return tuple(
        replace(
            conditions,
            name=f"{conditions.name}.{name}",
            description=f"{name} in the conditions of {conditions.name}.",
            stages=_in_conditions(shown[name].stages, conditions.stages[0]),
        )
        for name in sorted(names, key=lambda name: (name != SOURCE_ONLY, name))
    )


def method_of(recipe: str) -> str:
    """Return the method of a recipe of `equal_recipes` by the recipe's name.

    >>> method_of("equal.dann")
    'dann'
    """
    return recipe.partition(".")[2]


def demonstration(method: str, *, on_features: bool) -> Recipe:
    """Return the recipe of the package that demonstrates a method: one whose last stage is that method.

    Of several, those on the same input come first, and of these the shortest. A method without a recipe, such as one of
    your own, is taken with its defaults.
    """
    found = [recipe for recipe in _recipes_of_the_package() if recipe.stages[-1].method == method]
    if not found:
        return Recipe(method, (Stage(method, epochs=1),))
    return min(found, key=lambda one: (bool(one.features) != on_features, sum(stage.epochs for stage in one.stages)))


@cache
def _recipes_of_the_package() -> tuple[Recipe, ...]:
    return tuple(load_recipe(name) for name in recipe_names())


def _in_conditions(stages: tuple[Stage, ...], conditions: Stage) -> tuple[Stage, ...]:
    epochs = shares([stage.epochs for stage in stages], conditions.epochs)
    rates = [stage.optim.lr / stages[0].optim.lr for stage in stages]
    return tuple(
        replace(
            conditions,
            method=stage.method,
            options=stage.options,
            epochs=count,
            optim=replace(conditions.optim, lr=conditions.optim.lr * rate),
        )
        for stage, count, rate in zip(stages, epochs, rates, strict=True)
    )


def shares(weights: list[int], total: int) -> list[int]:
    """Divide a total into whole numbers in proportion to weights, each at least 1.

    Raises MutualignError if the total is below the number of weights.

    >>> shares([10, 10], 4), shares([10, 1], 5)
    ([2, 2], [4, 1])
    """
    if total < len(weights):
        raise MutualignError(f"{total} epochs are too few for {len(weights)} stages: each needs one")
    found: list[int] = []
    for number, weight in enumerate(weights):
        left, rest = total - sum(found), weights[number:]
        found.append(min(max(1, round(left * weight / sum(rest))), left - len(rest) + 1))
    return found
