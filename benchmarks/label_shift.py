"""Label shift on photos: `photos` against source only where half of the target's classes are rare or absent."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import results_file
import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mutualign.data.fetch.data_files import data_folder
from mutualign.data.task import Task
from mutualign.data.types import TargetDataset
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.loading import load_task
from mutualign.runs.statistics import Interval
from mutualign.training.distributed import make_fabric
from mutualign.training.hardware import describe_hardware

RECIPES = ("photos_source_only", "photos")
SHARES = (0.15, 0.0)  # of the other classes' images
PAIRS = tuple("-".join(pair) for pair in permutations(("amazon", "webcam", "dslr"), 2))


@dataclass(frozen=True)
class Settings:
    """Train both recipes on all pairs of Office-31 with fewer target images of 16 of the 31 classes."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    seeds: int = 3
    """how many seeds: 0, 1, 2, ..."""
    out: Path = Path("results/label-shift.json")
    """where the numbers are written"""


def shifted(task: Task, share: float) -> Task:
    """Keep all target images of the first half of the classes, and the first ones of each other class."""
    whole = len(task.class_names) // 2
    test = _thinned(task.target_test, whole, share)
    same = task.target_train.hidden_labels is None  # photos: the test has the images of training
    return replace(
        task,
        identity=f"{task.identity}, {share:.0%} of the target's classes from {whole} on",
        target_train=replace(test, hidden_labels=None) if same else _thinned(task.target_train, whole, share),
        target_test=test,
        pictures=None,
        target_test_files=(),
    )


def _thinned(images: TargetDataset, whole: int, share: float) -> TargetDataset:
    """Keep all images of the first classes, and the first ones of each other class."""
    labels = images.hidden_labels
    if labels is None:
        raise ValueError("the target has no labels")
    kept = []
    for label, count in enumerate(torch.bincount(labels).tolist()):
        rows = (labels == label).nonzero().flatten()
        kept.append(rows if label < whole else rows[: round(share * count)])
    return images.subset(torch.cat(kept).sort().values)


def measure(settings: Settings) -> list[dict[str, Any]]:
    """Train everything, one after the other."""
    rows = []
    recipes = [load_recipe(name) for name in RECIPES]
    for pair in track(PAIRS, console=Console(stderr=True)):
        whole = load_task(f"office31:{pair}", data_folder(settings.data), recipes[0])
        for share in SHARES:
            task = shifted(whole, share)
            for recipe in recipes:
                for seed in range(settings.seeds):
                    with tempfile.TemporaryDirectory() as folder:
                        experiment = Experiment.start(recipe, task, seed, Path(folder) / "run")
                        experiment.run()
                        result = experiment.folder.require_result()
                    what = {"pair": pair, "share": share, "images": len(task.target_train)}
                    accuracy = result.stages[-1].last.target_accuracy
                    rows.append({**what, "recipe": recipe.name, "seed": seed, "target_accuracy": accuracy})
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay out one line per pair and share: target accuracy of both recipes with 95 % intervals over seeds."""
    shown = Table("pair", "share", "images", *RECIPES)
    for pair, share in {(row["pair"], row["share"]): None for row in rows}:
        own = [row for row in rows if (row["pair"], row["share"]) == (pair, share)]
        found = [Interval.of([row["target_accuracy"] for row in own if row["recipe"] == name]) for name in RECIPES]
        shown.add_row(pair, f"{share:.0%}", str(own[0]["images"]), *(interval.percent() for interval in found))
    return shown


def main() -> None:
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin = results_file.origin() | {"hardware": describe_hardware(make_fabric("float32"))}  # as the recipes say
    rows = measure(settings)
    results_file.write(settings.out, origin, rows)
    Console().print(table(rows))


if __name__ == "__main__":
    main()
