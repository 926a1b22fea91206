"""Loading what a recipe trains on: the images of a task, or features of its image files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mutualign.data.datasets import find_task
from mutualign.data.features.settings import FeatureSettings
from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.task import Task
from mutualign.errors import MutualignError
from mutualign.recipes import Recipe

PHOTO_SIDE = 48  # pixels of the shorter side from which images are taken for photos


def load_task(name: str, data: Path, recipe: Recipe, own: FolderTask | None = None) -> Task:
    """Load a task by name, or a user's own images, in the form that a recipe trains on.

    Raises MutualignError if the recipe needs image files and the task has none.
    """
    if not recipe.features:
        return find_task(name).load(data) if own is None else own.load()
    folders = own
    if folders is None:
        entry = find_task(name)
        if entry.folders is None:
            raise MutualignError(
                f'recipe {recipe.name} trains on features of image files; the task "{name}" has none\n'
                "  hint:    give --source and --target, or choose another recipe, such as best"
            )
        folders = entry.folders(data)
    loaded = replace(folders, features=FeatureSettings(recipe.features, recipe.views)).load()
    return loaded if own is not None else replace(loaded, name=name)


def default_recipe(own: FolderTask | None) -> str:
    """The recipe for a task that names none: `photos` for images of 48 pixels and more, otherwise `best`."""
    return "photos" if own is not None and own.typical_side() >= PHOTO_SIDE else "best"
