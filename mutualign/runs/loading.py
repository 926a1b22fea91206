"""Loading a recipe for a task, and what it trains on: images, features of image files, or feature vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mutualign.data.datasets import find_task
from mutualign.data.datasets.registry import take_slice
from mutualign.data.features.settings import FeatureSettings
from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.task import ARRAYS, REFIT, Task
from mutualign.errors import MutualignError
from mutualign.nn.backbones.finetuned import FINETUNE
from mutualign.nn.weights import NetworkWeights
from mutualign.recipes import Recipe
from mutualign.recipes.equal import ALL, CONDITIONS, PHOTO_CONDITIONS, equal_recipes
from mutualign.runs.network_choice import NO_CHOICE, NetworkChoice

PHOTO_SIDE = 48  # pixels of the shorter side from which images are taken for photos


def load_task(name: str, data: Path, recipe: Recipe, own: FolderTask | None = None) -> Task:
    """Load a task by name, or a user's own images, in the form that a recipe trains on.

    Raises MutualignError if the recipe needs image files and the task has none, if an image size is asked for and the
    recipe trains on features, and for a run on arrays in memory.
    """
    if name == ARRAYS:
        raise MutualignError(f"the images of this run cannot be loaded\n  hint:    {REFIT}")
    entry = find_task(name) if own is None else None
    folders = entry.folders(data) if entry else own
    if pretrained := recipe.pretrained:
        if folders is None:
            raise MutualignError(
                f'recipe {recipe.name} trains on features of image files; the task "{name}" has none\n'
                "  hint:    give --source and --target, or choose another recipe, such as best"
            )
        if folders.image_size is not None:
            raise MutualignError(
                f"recipe {recipe.name} trains on features of {pretrained.network}, which takes images of "
                f"{pretrained.side} pixels: there is no other image size\n"
                "  hint:    leave --image-size out, choose a recipe that trains on images, such as best, or train the\n"
                "           pretrained network itself on images of that size: `mutualign run --finetune`"
            )
        settings = FeatureSettings(pretrained.network, recipe.views, pretrained.weights, pretrained.sha256)
        folders = replace(folders, features=settings)
    elif folders is not None and (side := _finetuned_side(recipe, folders)):
        folders = replace(folders, image_size=side)
    elif entry is not None:
        return replace(entry.load(data), data_folder=data)
    assert folders is not None  # noqa: S101 - for the type checker
    loaded = folders.load()
    if entry is None:
        return loaded
    return replace(loaded if entry.size is None else take_slice(loaded, entry.size), name=name)


def load_for_all(name: str, data: Path, recipes: Sequence[Recipe], own: FolderTask | None = None) -> Task:
    """Load a task as `load_task` does, for recipes that are trained on the same images.

    Raises MutualignError if they take images of different sizes.
    """
    if folders := own or find_task(name).folders(data):
        sides = {_finetuned_side(recipe, folders): recipe.name for recipe in recipes}
        if len(sides) > 1:
            seen = [f"{recipe} on {f'{side} pixels' if side else 'their own'}" for side, recipe in sides.items()]
            advice = "give all the same size, with --image-size" if own else "train them in two folders, with --out"
            raise MutualignError(f"recipes train on images of different sizes: {', '.join(seen)}\n  hint:    {advice}")
    return load_task(name, data, recipes[0], own)


def _finetuned_side(recipe: Recipe, folders: FolderTask) -> int | None:
    """The side of a fine-tuned network's images, if no image size is asked for; None for what all others take."""
    if recipe.features or folders.image_size is not None or not recipe.backbone.startswith(FINETUNE):
        return None
    return NetworkWeights(recipe.backbone).side


def photo_hint(recipe: Recipe, task: Task) -> Iterator[str]:
    """Yield a hint if a recipe trains a whole network on photos, from random weights."""
    small = min(task.shape.height, task.shape.width) < PHOTO_SIDE
    if recipe.pretrained is None and recipe.initial_weights is None and not small:
        others = "photos_source_only" if recipe.is_source_only else "photos"
        yield (
            f"hint: {recipe.name} trains a whole network on images of {task.shape.height}x{task.shape.width} from "
            f"random weights;\n      --recipe {others} adapts features of a pretrained one in minutes"
        )


def default_recipe(own: FolderTask | None) -> str:
    """The recipe if none is named: `photos` for images of 48 pixels and more and feature vectors, otherwise `best`."""
    return "photos" if own is not None and (own.is_vectors or own.typical_side() >= PHOTO_SIDE) else "best"


def recipe_for(
    own: FolderTask | None, name: str, overrides: Iterable[str] = (), chosen: NetworkChoice = NO_CHOICE
) -> Recipe:
    """Load a recipe for a task; on feature vectors, one for photos is used without its own features.

    Raises MutualignError for an unknown recipe, override or network, and for a recipe that cannot train on feature
    vectors.
    """
    return suited(chosen.apply(name, overrides), own)


def recipes_for(
    own: FolderTask | None,
    names: str,
    overrides: Iterable[str] = (),
    chosen: NetworkChoice = NO_CHOICE,
    *,
    photos: bool = False,
) -> tuple[Recipe, ...]:
    """Load recipes by names with commas between; `all` and `all:NAME` are every method in equal conditions.

    NAME is the recipe with the conditions; overrides and the choice of a network change all recipes alike; `photos`
    says which recipe is meant by `all`. Raises MutualignError as `recipe_for` does.
    """
    recipes: list[Recipe] = []
    for name in split_names(names):
        every, _, conditions = name.partition(":")
        if every == ALL:
            base = chosen.apply(conditions or (PHOTO_CONDITIONS if photos else CONDITIONS), overrides)
            recipes += [suited(recipe, own) for recipe in equal_recipes(base)]
        else:
            recipes.append(recipe_for(own, name, overrides, chosen))
    return tuple(recipes)


def split_names(names: str) -> list[str]:
    """Split names at commas and the blanks around them.

    >>> split_names("source_only, dann")
    ['source_only', 'dann']
    """
    return [name.strip() for name in names.split(",")]


def suited(recipe: Recipe, own: FolderTask | None) -> Recipe:
    """Return a recipe as it trains on a user's own data: on feature vectors, without features of its own.

    Raises MutualignError if it cannot train on feature vectors.
    """
    if own is None or not own.is_vectors:
        return recipe
    if recipe.needs_images:
        raise MutualignError(
            f"recipe {recipe.name} turns and recolours images; {own.source} holds feature vectors\n"
            "  hint:    take photos, photos_mani or photos_dann, or another recipe with --backbone mlp"
        )
    return replace(recipe, features="", views=1, backbone_weights="")
