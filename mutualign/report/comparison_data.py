"""The runs below a folder, grouped by the data they were trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from mutualign.errors import MutualignError, first_line
from mutualign.evaluation.estimators import Estimate, RunOutputs, estimates
from mutualign.evaluation.selection import best_epoch
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.io.plugins import mutualign_command
from mutualign.report.run_data import FinishedRun
from mutualign.runs.estimates import most_trusted, run_outputs
from mutualign.runs.folder import RunFolder
from mutualign.runs.rows import Row, rows_of
from mutualign.runs.statistics import fair_baselines
from mutualign.runs.status import find_runs

PAGE = "report.html"  # of a run or a comparison, in its folder


@dataclass(frozen=True)
class ComparedRun:
    """A finished run of a comparison."""

    run: FinishedRun
    path: str  # relative to the comparison's folder
    system: str  # the recipe's name; with its digest if runs with other settings have the same name
    page: str | None = None  # the address of the run's own page, if there is one

    @property
    def seed(self) -> int:
        """The seed."""
        return self.run.result.seed


@dataclass(frozen=True)
class RunGroup:
    """Runs whose results compare, because task, images and classes are the same."""

    title: str
    data: str
    runs: list[ComparedRun]

    @property
    def systems(self) -> dict[str, list[ComparedRun]]:
        """The runs of each system."""
        found: dict[str, list[ComparedRun]] = {}
        for one in self.runs:
            found.setdefault(one.system, []).append(one)
        return found

    @property
    def validator(self) -> str | None:
        """The label-free score that all runs have; None if they have none in common."""
        names = dict.fromkeys([DEFAULT_VALIDATOR, *(one.run.validator for one in self.runs)])
        records = [record for one in self.runs for record in one.run.last_records]
        return next((name for name in names if all(name in record.scores for record in records)), None)

    def score(self, one: ComparedRun) -> float | None:
        """Return the highest score of a run's last stage."""
        if (validator := self.validator) is None:
            return None
        return best_epoch(one.run.last_records, validator).scores[validator]

    def estimates(self) -> dict[str, tuple[str, Estimate]]:
        """Estimate each run's target accuracy from all runs: (estimator, estimate) by path, without unusable runs."""
        usable = {one.path: outputs for one in self.runs if (outputs := _outputs(one.run.folder)) is not None}
        return {path: most_trusted(estimates(run, list(usable.values()))) for path, run in usable.items()}

    @property
    def baselines(self) -> dict[str, str]:
        """The fair source-only system of each adapted system that has one here."""
        return fair_baselines({one.system: one.run.config.recipe for one in self.runs})

    def rows(self) -> list[Row]:
        """Return the rows of all runs, one per way of choosing the epoch."""
        return [
            replace(row, recipe=one.system)
            for one in self.runs
            for row in rows_of(one.run.config.recipe, one.run.folder)
        ]


@dataclass(frozen=True)
class LeftOut:
    """A folder that is not part of the comparison."""

    path: str
    reason: str


def read_runs(path: Path, link_from: Path | None = None) -> tuple[list[RunGroup], list[LeftOut]]:
    """Read all runs below a folder; links to their pages start from the folder `link_from`, by default the same.

    Raises MutualignError if none of them is complete.
    """
    found: list[tuple[str, FinishedRun]] = []
    left_out: list[LeftOut] = []
    for place in find_runs(path):
        name = str(place.relative_to(path))
        try:
            folder = RunFolder.open(place)
            if folder.is_complete:
                # Tensors are read, so that damaged ones are found, and not kept: those of many runs are large.
                found.append((name, replace(FinishedRun.read(folder), outputs={}, review={})))
            else:
                left_out.append(LeftOut(name, "not complete"))
        except MutualignError as error:
            left_out.append(LeftOut(name, first_line(error)))
    if not found:
        raise _nothing_to_compare(path, left_out)
    groups: list[RunGroup] = []
    by_data: dict[tuple[object, ...], list[tuple[str, FinishedRun]]] = {}
    for name, run in found:
        key = (run.result.task, run.result.data, run.config.images, tuple(run.class_names))
        by_data.setdefault(key, []).append((name, run))
    for task in dict.fromkeys(run.result.task for _, run in found):
        own = [runs for key, runs in by_data.items() if key[0] == task]
        for number, runs in enumerate(own, start=1):
            title = task if len(own) == 1 else f"{task}, data {number} of {len(own)}"
            compared, repeated = _name_systems(runs, (link_from or path).absolute())
            groups.append(RunGroup(title, runs[0][1].result.data, compared))
            left_out += repeated
    return groups, left_out


def _name_systems(runs: Sequence[tuple[str, FinishedRun]], link_from: Path) -> tuple[list[ComparedRun], list[LeftOut]]:
    """Name the system of each run; leave out runs that repeat another one."""
    digests: dict[str, set[str]] = {}
    for _, run in runs:
        digests.setdefault(run.name, set()).add(run.config.recipe.digest)
    compared: list[ComparedRun] = []
    left_out: list[LeftOut] = []
    kept: dict[tuple[str, int], str] = {}
    for path, run in runs:
        system = run.name if len(digests[run.name]) == 1 else f"{run.name} ({run.config.recipe.digest})"
        first = kept.setdefault((system, run.result.seed), path)
        if first == path:
            compared.append(ComparedRun(run, path, system, _page(run, link_from)))
        else:
            left_out.append(LeftOut(path, f"same recipe, data and seed as {first}"))
    return compared, left_out


def _outputs(folder: RunFolder) -> RunOutputs | None:
    """Read what a run is estimated from; None if it is missing or damaged."""
    try:
        return run_outputs(folder, "selected")
    except MutualignError:
        return None


def _page(run: FinishedRun, link_from: Path) -> str | None:
    """Return the relative address of a run's page, if there is one."""
    page = run.folder.path.absolute() / PAGE
    return quote(Path(os.path.relpath(page, link_from)).as_posix()) if page.is_file() else None


def _nothing_to_compare(path: Path, left_out: Sequence[LeftOut]) -> MutualignError:
    if not path.is_dir():
        return MutualignError(f"{path}: no such folder\n  hint:    name a run folder, or a folder with runs in it")
    if not left_out:
        return MutualignError(
            f"{path} is not a run folder, and no folder below it is one\n"
            "  hint:    name a run, such as runs/digits/fast/seed-0, or a folder that `mutualign compare` filled"
        )
    shown = "\n".join(f"  left out {one.path}: {one.reason}" for one in left_out[:10])
    hint = f"`{mutualign_command('runs', path)}` lists them, and how to continue them"
    return MutualignError(f"{path}: no run below it is complete\n{shown}\n  hint:    {hint}")
