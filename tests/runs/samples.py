"""Small recipes, records and configs that the tests of runs share."""

from __future__ import annotations

import dataclasses
from typing import Any

from mutualign.evaluation.records import EpochAudit, EpochRecord
from mutualign.io.typed import to_plain
from mutualign.recipes import Recipe, parse_recipe
from mutualign.runs.history import SelectedEpoch, Selection
from mutualign.runs.rows import Row
from mutualign.runs.spec import RunSpec
from tests.training.tiny_runs import SHAPE

EAGER = {"mani": {"threshold": 0.35}, "mutual_align": {"threshold": 0.35}}  # pseudo-labels from the first step


def recipe(
    *methods: str,
    epochs: int = 2,
    batch_size: int = 20,
    epoch_steps: int = 0,
    precision: str = "float32",
    **changes: Any,
) -> Recipe:
    """A stage per method; on the tiny task an epoch has 3 steps, or 5 with a batch size of 10."""
    common = {"epochs": epochs, "batch_size": batch_size, "epoch_steps": epoch_steps, "optim": {"lr": 1e-2}}
    stages = [common | {"method": name, "options": EAGER.get(name, {})} for name in methods]
    data = {"name": "-".join(methods), "precision": precision, "stages": stages}
    return parse_recipe(data | changes, "a test")


def config(spec: RunSpec, **changes: Any) -> dict[str, Any]:
    """What config.toml of a run holds."""
    plain = {"command": "mutualign run", "task": spec.task, "data": "images", "seed": spec.seed}
    data = {"images": SHAPE._asdict(), "class_names": ["cat", "dog", "bird"]}
    return plain | data | {"recipe": spec.recipe.to_dict()} | changes


SPEC = RunSpec(recipe("dann", "mani"), "tiny", 3)


def record(stage: int = 0, epoch: int = 1, **changes: Any) -> EpochRecord:
    """The record of an epoch."""
    found = EpochRecord(
        stage, epoch, "dann", 10.0 * epoch, {"loss_class": 0.1}, {"combined": 0.5}, 0.9, 0.5, EpochAudit([], [])
    )
    return dataclasses.replace(found, **changes)


def row(recipe: str = "r", seed: int = 0, selection: str = "last", target: float | None = 0.5, task: str = "t") -> Row:
    """A row of a comparison."""
    return Row(recipe, task, seed, 10.0 * (seed + 1), 2, Selection.parse(selection), 2, target, 0.5, "cpu", "abc")


def untimed(value: Any) -> Any:
    """Plain data of rows, records or results without times."""
    plain = to_plain(value)
    if isinstance(plain, list):
        return [untimed(one) for one in plain]
    if isinstance(plain, dict):
        return {key: untimed(one) for key, one in plain.items() if key not in ("train_seconds", "created")}
    return plain


def chosen(stage: Any) -> dict[str, tuple[int, float | None]]:
    """Epoch and target accuracy of a stage's result, by the way of choosing."""
    selections: list[SelectedEpoch] = stage.selections
    return {str(one.selection): (one.epoch, one.target_accuracy) for one in selections}
