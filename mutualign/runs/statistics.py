"""Statistics over seeds: means with intervals, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import scipy

from mutualign.recipes import Recipe
from mutualign.runs.history import Selection
from mutualign.runs.rows import Row


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds with its 95 % interval (Student's t); a single seed has no interval."""

    mean: float
    half_width: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Compute mean and interval of one or more values."""
        n, mean = len(values), sum(values) / len(values)
        if n == 1:
            return cls(mean, None, 1)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
        return cls(mean, float(scipy.special.stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n), n)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies above or below zero; never of a single seed."""
        return self.half_width is not None and abs(self.mean) > self.half_width

    def percent(self, digits: int = 1, sign: str = "") -> str:
        """Format for a table: `86.9 ± 0.8`, `86.9` for a single seed, `+2.1 ± 0.8` for a gain with sign="+"."""
        half_width = "" if self.half_width is None else f" ± {100 * self.half_width:.{digits}f}"
        return f"{100 * self.mean:{sign}z.{digits}f}{half_width}"  # z: no -0.0


@dataclass(frozen=True)
class Summary:
    """One recipe on one task over seeds; `target` is empty without target labels."""

    task: str
    recipe: str
    source: Interval  # accuracy at the last epoch
    target: dict[Selection, Interval]  # accuracy by the way of choosing the epoch
    seconds: float  # of training, of the fastest seed: others may have shared the machine

    def target_by(self, kind: str) -> Interval | None:
        """Target accuracy by a kind of selection: last, validator or oracle."""
        return _by_kind(self.target, kind)


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Summarise rows by task and recipe, in their order."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.recipe), []).append(row)
    summaries = []
    for (task, recipe), group in groups.items():
        last = [row for row in group if row.selection.kind == "last"]
        target: dict[Selection, list[float]] = {}
        for row in group:
            if row.target_accuracy is not None:
                target.setdefault(row.selection, []).append(row.target_accuracy)
        summaries.append(
            Summary(
                task,
                recipe,
                Interval.of([row.source_accuracy for row in last]),
                {selection: Interval.of(values) for selection, values in target.items()},
                min(row.train_seconds for row in last),
            )
        )
    return summaries


@dataclass(frozen=True)
class Difference:
    """Target accuracy of one recipe minus that of a baseline, over the seeds that both have."""

    task: str
    recipe: str
    baseline: str
    target: dict[Selection, Interval]

    def target_by(self, kind: str) -> Interval | None:
        """The difference by a kind of selection: last, validator or oracle."""
        return _by_kind(self.target, kind)


def fair_baselines(systems: Mapping[str, Recipe]) -> dict[str, str]:
    """Pair each adapted system with its fair source-only system, by name; without systems that have none here.

    >>> from mutualign.recipes import load_recipe
    >>> names = ["photos_source_only", "photos_dann", "photos"]
    >>> fair_baselines({name: load_recipe(name) for name in names})
    {'photos': 'photos_source_only'}
    """
    source_only = {recipe.digest: name for name, recipe in systems.items() if recipe.is_source_only}
    wanted = {name: recipe.source_only().digest for name, recipe in systems.items() if not recipe.is_source_only}
    return {name: source_only[digest] for name, digest in wanted.items() if digest in source_only}


def differences(rows: Iterable[Row], baselines: Mapping[str, str] | None = None) -> list[Difference]:
    """Compare each recipe with its baseline, paired by seed; needs target labels and shared seeds.

    `baselines` names the baseline of each recipe, and recipes without one are left out; without `baselines`, it is the
    task's first recipe.

    Seeds share the order of the data and the draws of the initial weights, so a paired interval is often narrower than
    the interval of either recipe.
    """
    found: dict[tuple[str, str], dict[Selection, dict[int, float]]] = {}
    for row in rows:
        if row.target_accuracy is not None:
            by_selection = found.setdefault((row.task, row.recipe), {})
            by_selection.setdefault(row.selection, {})[row.seed] = row.target_accuracy
    first: dict[str, str] = {}
    paired = []
    for (task, recipe), by_selection in found.items():
        first.setdefault(task, recipe)
        baseline = first[task] if baselines is None else baselines.get(recipe, recipe)
        if recipe == baseline:
            continue
        gains: dict[Selection, Interval] = {}
        for selection, own in by_selection.items():
            reference = found.get((task, baseline), {}).get(selection, {})
            if shared := own.keys() & reference.keys():
                gains[selection] = Interval.of([own[seed] - reference[seed] for seed in sorted(shared)])
        if gains:
            paired.append(Difference(task, recipe, baseline, gains))
    return paired


def _by_kind(intervals: Mapping[Selection, Interval], kind: str) -> Interval | None:
    return next((interval for selection, interval in intervals.items() if selection.kind == kind), None)
