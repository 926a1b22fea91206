"""Seconds of training until 87, 97 and 98.5 % of the target test images are right, for each recipe.

The accuracy of an epoch is known at its end, so every time is an upper bound. Target labels measure and choose nothing.
Goals that a recipe does not reach within `--limit` stay empty.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import results_file
import tyro
from rich.console import Console
from rich.table import Table

from mutualign.data.datasets import find_task
from mutualign.data.fetch.data_files import data_folder
from mutualign.data.task import Task
from mutualign.errors import MutualignError
from mutualign.evaluation.records import EpochRecord
from mutualign.recipes import Recipe, load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.observer import Observer
from mutualign.training.loop import Stopped

GOALS = (0.87, 0.97, 0.985)


@dataclass(frozen=True)
class Settings:
    """Train recipes and note when they reach each goal. Needs an idle machine."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    task: str = "mnist-mnistm"
    """the task to train on"""
    recipes: tuple[str, ...] = ("mani", "fast", "best")
    """names of recipes, or paths of their .toml files"""
    seeds: int = 1
    """how many seeds: 0, 1, 2, ..."""
    limit: float = 600.0
    """seconds of training after which a run is stopped"""
    out: Path = Path("results/speed.json")
    """where the numbers are written"""


class Clock(Observer):
    """Records seconds of training over all stages with the accuracies; asks to stop at the limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.curve: list[tuple[float, float]] = []
        self._stage, self._before, self._last = 0, 0.0, 0.0

    def epoch(self, record: EpochRecord) -> None:
        if record.stage != self._stage:
            self._stage, self._before = record.stage, self._last
        self._last = self._before + record.train_seconds
        self.curve.append((self._last, record.target_accuracy or 0.0))

    def should_stop(self) -> bool:
        return self._last > self.limit

    def seconds_to(self, goal: float) -> float | None:
        """Return the seconds at the end of the first epoch that reaches the goal; None if none does."""
        return next((seconds for seconds, accuracy in self.curve if accuracy >= goal), None)


def measure(recipe: Recipe, task: Task, seed: int, limit: float, accelerator: str = "auto") -> dict[str, Any]:
    """Train one run to its end or the limit, and return its row."""
    clock = Clock(limit)
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"observer": clock, "should_stop": clock.should_stop, "accelerator": accelerator}
        experiment = Experiment.start(recipe, task, seed, Path(folder) / "run", **settings)
        try:
            experiment.run()
            complete = True
        except Stopped:
            complete = False
    return {
        "recipe": recipe.name,
        "task": task.name,
        "seed": seed,
        "complete": complete,
        "seconds": {f"{100 * goal:g}": clock.seconds_to(goal) for goal in GOALS},
        "curve": clock.curve,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay out one line per run."""
    shown = Table("recipe", "seed", *(f"{100 * goal:g} %" for goal in GOALS), "last", title="seconds of training until")
    for row in rows:
        times = ["" if seconds is None else f"{seconds:.0f}" for seconds in row["seconds"].values()]
        seconds, accuracy = row["curve"][-1]
        shown.add_row(row["recipe"], str(row["seed"]), *times, f"{100 * accuracy:.1f} % at {seconds:.0f} s")
    return shown


def main() -> None:
    """Measure, print a table, write the JSON."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin = results_file.origin()
    try:
        recipes = [load_recipe(name) for name in settings.recipes]
        task = find_task(settings.task).load(data_folder(settings.data))
        rows = [measure(recipe, task, seed, settings.limit) for seed in range(settings.seeds) for recipe in recipes]
    except MutualignError as error:
        raise SystemExit(f"benchmarks/time_to_accuracy.py: {error}") from None
    Console().print(table(rows))
    results_file.write(settings.out, origin, rows, limit_seconds=settings.limit)


if __name__ == "__main__":
    main()
