"""The leaderboard: what each method gains over source only, by task, from results/leaderboard-*.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import scipy

from mutualign.evaluation.verdict import Kind, Range, kind_of_gain
from mutualign.recipes.equal import method_of
from mutualign.recipes.recipe import SOURCE_ONLY
from mutualign.runs.rows import Row
from mutualign.runs.statistics import Difference, Interval, differences, summarise

SELECTIONS = ("last", "validator", "oracle")


def kind(gain: Interval) -> Kind:
    """Return what a gain says, by the rule of the verdict: one of an image or two is no difference."""
    if gain.half_width is None:
        return "cannot tell"
    return kind_of_gain(Range(gain.mean, gain.mean - gain.half_width, gain.mean + gain.half_width))


def certain(gain: Interval) -> bool:
    """Whether a gain is certainly a gain, or certainly a loss."""
    return kind(gain) in ("helped", "made it worse")


@dataclass(frozen=True)
class Standing:
    """How one method stands over the tasks of a board; gains are over source only, in shares of 1."""

    method: str
    rank: float  # by accuracy at the last epoch, mean over tasks; 1 is best
    gains: dict[str, Interval]  # by kind of selection: mean over tasks, interval over seeds
    better: int  # tasks with a certain gain at the last epoch,
    worse: int  # and with a certain loss
    tasks: int
    cost: float  # seconds of training over those of source only, mean over tasks


@dataclass(frozen=True)
class Board:
    """Rows of several methods in equal conditions, on several tasks and seeds; complete tasks only."""

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Board:
        """Name the rows after their methods, and leave out tasks that a method or a seed is missing on."""
        named = [replace(row, recipe=method_of(row.recipe)) for row in rows if row.target_accuracy is not None]
        runs = {task: {(row.recipe, row.seed) for row in named if row.task == task} for task in _unique(named, "task")}
        everything = set().union(*runs.values())
        return cls(tuple(row for row in named if runs[row.task] == everything))

    @property
    def tasks(self) -> list[str]:
        """The tasks, in order."""
        return _unique(self.rows, "task")

    @property
    def methods(self) -> list[str]:
        """The methods, source only first."""
        return _unique(self.rows, "recipe")

    @property
    def seeds(self) -> list[int]:
        """The seeds that every method has on every task."""
        return sorted({row.seed for row in self.rows})

    def gains(self, kind: str = "last") -> dict[tuple[str, str], Interval]:
        """Return the gain over source only by method and task, with a 95 % interval paired by seed."""
        return {(one.recipe, one.task): gain for one in self._differences if (gain := one.target_by(kind))}

    def standings(self) -> list[Standing]:
        """Return the methods by mean rank, the best first."""
        found = [self._standing(method) for method in self.methods]
        return sorted(found, key=lambda one: one.rank)

    def _standing(self, method: str) -> Standing:
        gains = [gain for (name, _), gain in self.gains().items() if name == method]
        costs = [self._seconds(task, method) / max(self._seconds(task, SOURCE_ONLY), 0.1) for task in self.tasks]
        return Standing(
            method=method,
            rank=sum(ranks[method] for ranks in self._ranks.values()) / len(self.tasks),
            gains={kind: self._mean_gain(method, kind) for kind in SELECTIONS},
            better=sum(kind(gain) == "helped" for gain in gains),
            worse=sum(kind(gain) == "made it worse" for gain in gains),
            tasks=len(self.tasks),
            cost=sum(costs) / len(costs),
        )

    def _seconds(self, task: str, method: str) -> float:
        """The seconds of the fastest seed: other work on the machine can only slow a run down."""
        return min(row.train_seconds for row in self.rows if (row.task, row.recipe) == (task, method))

    def _mean_gain(self, method: str, kind: str) -> Interval:
        """The gain averaged over tasks, with its interval over seeds."""
        accuracy = {
            (row.recipe, row.task, row.seed): row.target_accuracy or 0.0
            for row in self.rows
            if row.selection.kind == kind
        }
        return Interval.of(
            [
                sum(accuracy[method, task, seed] - accuracy[SOURCE_ONLY, task, seed] for task in self.tasks)
                / len(self.tasks)
                for seed in self.seeds
            ]
        )

    @cached_property
    def _differences(self) -> list[Difference]:
        return differences(self.rows)

    @cached_property
    def _ranks(self) -> dict[str, dict[str, float]]:
        """By task and method, the rank of the mean accuracy; equal means share the mean of their ranks."""
        ranks: dict[str, dict[str, float]] = {}
        summaries = summarise(self.rows)
        for task in self.tasks:
            means = {one.recipe: one.target_by("last") for one in summaries if one.task == task}
            values = {method: interval.mean for method, interval in means.items() if interval}
            ranks[task] = dict(zip(values, scipy.stats.rankdata([-value for value in values.values()]), strict=True))
        return ranks


def _unique(rows: Sequence[Row], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(row, field) for row in rows))
