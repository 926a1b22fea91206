"""A sweep: trials are asked for one by one while an engine trains them, and the best one becomes a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from mutualign.errors import MutualignError
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.io.atomic import write_atomically
from mutualign.recipes import Recipe
from mutualign.runs.jobs import Job, TaskPlace
from mutualign.runs.loading import suited
from mutualign.runs.lock import owner_of
from mutualign.runs.spec import RunSpec
from mutualign.runs.sweeps.space import Space
from mutualign.runs.sweeps.study import BEST, Study
from mutualign.runs.sweeps.trial import TrialJob
from mutualign.runs.work import Circumstances, Work

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Sweep:
    """A space that is searched on a task; the objective is the mean score over seeds by the default validator."""

    study: Study
    space: Space
    task: TaskPlace
    seeds: int
    trials: int
    command: str
    circumstances: Circumstances

    def __post_init__(self) -> None:
        facts = {"recipe": self.space.recipe_with({}).to_dict(), "space": self.space.parameters}
        self.study.describe(facts | {"task": self.task.name, "data": self.task.identity, "seeds": self.seeds})

    def works(self) -> Iterator[Work]:
        """Yield trials that nobody works on any more, then new ones, each when it is asked for."""
        for trial in self.study.unfinished():
            if owner_of(self.study.folder / "trials" / str(trial.number)) is None:
                yield self._work(trial)
        while (asked := self.study.ask(self.space, self.trials)) is not None:
            yield self._work(asked)

    def recipe(self, trial: optuna.trial.FrozenTrial) -> Recipe:
        """Return the recipe of a trial, as it trains on the task: on feature vectors, without features of its own."""
        return suited(self.space.recipe_with(trial.params), self.task.own)

    def write_best(self) -> Path:
        """Write the recipe of the best trial as TOML. Raises MutualignError if no trial is complete."""
        best = self.study.best()
        if best is None:
            errors = [str(one.user_attrs["error"]) for one in self.study.study.trials if "error" in one.user_attrs]
            raise MutualignError(
                f"{self.study.folder}: no trial is complete; {errors[-1] if errors else 'none was trained'}"
            )
        path = self.study.folder / BEST
        recipe = replace(
            self.recipe(best),
            description=f"Trial {best.number} of {len(self.study.study.trials)} of a sweep of {self.space.recipe} on "
            f"{self.task.name}: {DEFAULT_VALIDATOR} {best.values[0]:.4f}, without target labels.",
        )
        write_atomically(path, tomli_w.dumps(recipe.to_dict()).encode())
        return path

    def _work(self, trial: optuna.trial.FrozenTrial) -> Work:
        recipe, out = self.recipe(trial), self.study.folder / "runs"
        specs = [RunSpec(recipe, self.task.name, seed) for seed in range(self.seeds)]
        jobs = [Job(spec, spec.path(out), self.task, self.command, self.circumstances) for spec in specs]
        return TrialJob(self.study.folder, trial.number, tuple(jobs), self.circumstances).work()
