"""A comparison: recipes x tasks x seeds, trained where they are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutualign.data.task import Task
from mutualign.errors import MutualignError
from mutualign.recipes import Recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.rows import Row, rows_of
from mutualign.runs.spec import RunSpec


@dataclass(frozen=True)
class Comparison:
    """Every recipe on every task with every seed, in run folders OUT/TASK/RECIPE/seed-SEED; finished runs are skipped.

    A recipe whose stages are the beginning of another's needs no run of its own: with the same seed, its training is
    bit for bit the beginning of the other's, and its row is read where that stage ends.
    """

    recipes: tuple[Recipe, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path

    def __post_init__(self) -> None:
        if not self.seeds:
            raise MutualignError("a comparison needs at least one seed")
        for kind, names in (("recipe", [recipe.name for recipe in self.recipes]), ("task", list(self.tasks))):
            if twice := [name for name in names if names.count(name) > 1]:
                raise MutualignError(f'the {kind} "{twice[0]}" is named twice; its runs would count twice')

    def run(
        self,
        load: Callable[[str], Task],
        on_row: Callable[[list[Row]], None] = lambda rows: None,
        **settings: Any,
    ) -> list[Row]:
        """Train what is missing and return all rows; `on_row` gets the rows so far after each seed.

        `load` returns a task by its name; it is called once for each task that has something to train.
        """
        rows: list[Row] = []
        for name in self.tasks:
            loaded: Task | None = None
            for seed in self.seeds:
                # Source only first: other runs look for it, to check for negative transfer.
                for recipe in sorted(self.recipes, key=lambda one: not one.is_source_only):
                    run = self.folder(recipe, name, seed)
                    if recipe == self._trained_for(recipe) and (not run or not run.is_complete):
                        loaded = loaded or load(name)
                        self._experiment(recipe, loaded, seed, run, **settings).run()
                for recipe in self.recipes:
                    trained = self.folder(self._trained_for(recipe), name, seed)
                    rows += rows_of(recipe, trained) if trained else []
                on_row(rows)
        return rows

    def folder(self, recipe: Recipe, task: str, seed: int) -> RunFolder | None:
        """The folder of a run that has started. Raises MutualignError if it has other settings."""
        path = RunSpec(recipe, task, seed).path(self.out)
        if not path.exists():
            return None
        run = RunFolder.open(path)
        found = run.config().recipe
        if not (found.is_prefix_of(recipe) and recipe.is_prefix_of(found)):
            raise MutualignError(
                f"{path} holds a run with other settings of {recipe.name}\n  hint:    choose another --out"
            )
        return run

    def _trained_for(self, recipe: Recipe) -> Recipe:
        """The longest recipe of the comparison that begins with this one: the one to train."""
        longer = [other for other in self.recipes if recipe.is_prefix_of(other)]
        return max(longer, key=lambda other: len(other.stages))

    def _experiment(self, recipe: Recipe, task: Task, seed: int, run: RunFolder | None, **settings: Any) -> Experiment:
        if run:
            return Experiment(recipe, task, seed, run, **settings)
        path = RunSpec(recipe, task.name, seed).path(self.out)
        return Experiment.start(recipe, task, seed, path, **settings)
