"""What identifies a run."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path

from mutualign.recipes import load_recipe, recipe_names
from mutualign.runs.spec import RunConfig, RunSpec
from tests.runs.samples import recipe
from tests.training.tiny_runs import SHAPE

OVERRIDES = [
    *("epochs=77", "batch_size=8", "epoch_steps=3", "optim.lr=0.5", "optim.weight_decay=0.1", "optim.name=adamw"),
    *("optim.schedule=cosine", "optim.backbone_lr_factor=0.1"),
]
WHOLE = ["precision=bf16", "backbone=mlp"]


def test_two_settings_share_neither_digest_nor_folder():
    """All recipes of the package, each with every single override, on several tasks with several seeds."""
    changes = [[], *([f"stages.0.{one}"] for one in OVERRIDES), *([one] for one in WHOLE)]
    recipes = [load_recipe(name, change) for name in recipe_names() for change in changes]
    specs = [RunSpec(*each) for each in product(recipes, ("digits", "digits@100"), (0, 1))]
    assert len({spec.digest for spec in specs}) == len(specs)
    assert len({spec.path(Path()) for spec in specs}) == len(specs)


def test_a_digest_depends_on_the_options_and_the_name_and_not_on_the_description():
    spec, changed = RunSpec(recipe("dann"), "digits", 0), load_recipe("dann", ["stages.0.options.weight=0.7"])
    assert RunSpec(dataclasses.replace(spec.recipe, description="reworded"), "digits", 0).digest == spec.digest
    assert RunSpec(dataclasses.replace(spec.recipe, name="renamed"), "digits", 0).digest != spec.digest
    assert RunSpec(changed, "digits", 0).digest != spec.digest
    assert changed.name == "dann-007fc5d7"  # it is a folder of existing runs, and must not change with the code


def test_of_many_notes_the_first_twenty_are_for_people():
    config = RunConfig(2, "a command", "t", "data", 0, recipe("dann"), SHAPE, ["a"], notes=[str(n) for n in range(20)])
    assert config.first_notes == config.notes
    many = dataclasses.replace(config, notes=[str(n) for n in range(1022)])
    assert many.first_notes == [*config.notes, "1,002 more in config.toml"]
