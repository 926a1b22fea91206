"""Reading recipes of early versions: old names become the present ones. Applying it twice changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BACKBONES = {"published_cnn": "mani_cnn"}
RENAMED = {"algorithm": "method", "learning_rate": "optim.lr", "schedule": "optim.schedule"}  # keys of stages


def upgrade_recipe(data: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of a run's recipe, and move the learning rate and its schedule into `optim`."""
    recipe = dict(data)
    if isinstance(backbone := recipe.get("backbone"), str):
        recipe["backbone"] = BACKBONES.get(backbone, backbone)
    stages = recipe.get("stages")
    if isinstance(stages, list):
        recipe["stages"] = [_upgrade_stage(stage) if isinstance(stage, Mapping) else stage for stage in stages]
    return recipe


def _upgrade_stage(data: Mapping[str, Any]) -> dict[str, Any]:
    stage = {RENAMED.get(key, key): value for key, value in data.items()}
    optim = {key.removeprefix("optim."): stage.pop(key) for key in list(stage) if key.startswith("optim.")}
    return stage | {"optim": optim} if optim else stage
