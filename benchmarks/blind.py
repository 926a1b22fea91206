"""The blind test of the evidence without labels: trains the tasks of `blind_tasks.py`, and compares evidence and truth.

Settings are chosen on one half of the tasks. The other half is run once, after the settings are committed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import results_file
import torch
import tyro
from blind_summary import summarise
from blind_tasks import BlindTask, Half, Kind, blind_tasks
from rich.console import Console
from rich.progress import track
from torch import Tensor

from mutualign.data.fetch.data_files import data_folder
from mutualign.evaluation.alarms import verdict_alarms
from mutualign.evaluation.discrepancy import bound_accuracy
from mutualign.evaluation.estimators import ESTIMATORS, RunOutputs, estimates
from mutualign.evaluation.few_labels import labelled_accuracy, labelled_gain, plan_labelling
from mutualign.evaluation.selection import best_epoch
from mutualign.evaluation.verdict import Evidence, Range, judge, paired_gain
from mutualign.runs.checkpoints import Which
from mutualign.runs.estimates import run_outputs
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.spec import RunSpec
from mutualign.runs.verdict import fair_baseline

LABELS = 50  # images that are labelled in the test of few labels
BY_VERDICT = {"negative transfer", "low target accuracy"}  # alarms that use target labels where there are any


@dataclass(frozen=True)
class Settings:
    """Train what is not trained yet, then measure; a stopped test resumes where it was."""

    runs: tyro.conf.Positional[Path]
    """where run folders go"""
    half: Half = "tune"
    """the half of the tasks"""
    kinds: tuple[Kind, ...] = ("images", "photos", "vectors")
    data: Path | None = None
    """the data of Office-31. Default: as for `mutualign run`"""
    out: Path = Path("results")
    """where blind.json or tune.json is written; rows of other kinds of tasks in it stay"""


@dataclass(frozen=True)
class Judged:
    """A run at one of its epochs, next to the truth."""

    folder: RunFolder
    outputs: RunOutputs
    right: Tensor  # which of the kept target test images are classified correctly
    labels: Tensor  # of these images


def train(task: BlindTask, runs: Path, data: Path) -> list[RunFolder]:
    """Train the recipes of a task after their baselines, and return all run folders. Complete runs are only opened."""
    recipes = list(dict.fromkeys([*(recipe.source_only() for recipe in task.recipes), *task.recipes]))
    loaded, folders = None, []
    for seed in task.seeds:
        for recipe in recipes:
            path = RunSpec(recipe, task.name, seed).path(runs)
            if not (path / "result.json").is_file():
                loaded = loaded or task.load(data)
                if path.exists():
                    Experiment(recipe, loaded, seed, RunFolder.open(path)).run()
                else:
                    Experiment.start(recipe, loaded, seed, path).run()
            folders.append(RunFolder.open(path))
    return folders


def measure(task: BlindTask, folders: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Return one row per run and epoch (the last one, and the one that the default validator selects)."""
    rows = []
    for which in ("last", "selected"):
        judged = {folder.path: read(folder, which) for folder in folders}
        every = [one.outputs for one in judged.values()]
        for one in judged.values():
            baseline = fair_baseline(one.folder)
            base = None if baseline is None else judged[baseline.path]
            rows.append(facts(task, one, which) | evidence(one, base, every))
    return rows


def read(folder: RunFolder, which: Which) -> Judged:
    """Read a run's outputs at an epoch, and the labels of the same images."""
    outputs, labels = run_outputs(folder, which), folder.checkpoints.load("review")[0]["labels"]
    return Judged(folder, outputs, outputs.outputs.predicted == labels, labels)


def facts(task: BlindTask, run: Judged, which: Which) -> dict[str, Any]:
    """Return what target labels say about a run, and which epochs and scores it has."""
    result, records = run.folder.require_result(), run.folder.metrics()
    epochs = [record for record in records if record.stage == records[-1].stage]
    recipe = run.folder.config().recipe
    shares = torch.bincount(run.labels, minlength=len(result.class_names or ())).double() / len(run.labels)
    change = (shares - torch.tensor(result.source_class_shares, dtype=torch.float64)).abs().sum() / 2
    row: dict[str, Any] = {
        "task": task.name,
        "kind": task.kind,
        "half": task.half,
        "identical": task.identical,
        "class_shift": round(float(change), 4),  # total variation of the true class frequencies
        "recipe": recipe.name,
        "baseline": recipe.is_source_only,
        "seed": result.seed,
        "epoch": which,
        "images": len(run.labels),
        "accuracy": share(run.right),
        "source_accuracy": round(run.outputs.outputs.source_accuracy, 4),
    }
    if which == "last":
        chosen = {name: best_epoch(epochs, name).target_accuracy for name in epochs[-1].scores}
        row["epoch_accuracies"] = rounded({"last": epochs[-1].target_accuracy, **chosen})
        row["oracle_accuracy"] = round(max(record.target_accuracy or 0.0 for record in epochs), 4)
        row["scores"] = rounded(epochs[-1].scores)
        row["curves"] = {name: [round(record.scores[name], 6) for record in epochs] for name in row["scores"]}
        row["curves"]["accuracy"] = [record.target_accuracy for record in epochs]
    return row


def evidence(run: Judged, base: Judged | None, runs: Sequence[RunOutputs]) -> dict[str, Any]:
    """Return what is said without labels, the true gain, and what a few labels say."""
    ours, theirs = run.outputs, None if base is None else base.outputs
    recipe, result = run.folder.config().recipe, run.folder.require_result()
    compared = None if base is None else base.folder.config().recipe.name
    verdict = judge(Evidence(ours, theirs, compared, is_baseline=recipe.is_source_only))
    found = estimates(ours, runs)
    names = [alarm.name for alarm in result.alarms or () if alarm.name not in BY_VERDICT]
    names += [alarm.name for alarm in verdict_alarms(verdict, ours.outputs.source_accuracy)]
    plan = plan_labelling(
        ours.outputs.target_logits, None if theirs is None else theirs.outputs.predicted, LABELS, result.data
    )
    predicted = ours.outputs.predicted
    row: dict[str, Any] = {
        "bound": round(bound_accuracy(ours.outputs).accuracy, 4),
        "estimates": {name: ranged(one) for name in ESTIMATORS if (one := found[name]) is not None},
        "alarms": list(dict.fromkeys(names)),
        "verdict": verdict.kind,
        "labelled_accuracy": ranged(labelled_accuracy(predicted[plan.random], run.labels[plan.random])),
    }
    if base is not None:
        other = base.outputs.outputs.predicted
        drawn = torch.cat([plan.random, plan.differing])
        drawn = drawn[predicted[drawn] != other[drawn]]
        apart = float((predicted != other).double().mean())
        gain = labelled_gain(apart, predicted[drawn], other[drawn], run.labels[drawn])
        row |= {
            "gain": ranged(paired_gain(run.right, base.right)),
            "estimated_gain": round(verdict.gain.value, 4) if verdict.gain else None,
            "labelled_gain": ranged(gain),
        }
    return row


def ranged(one: Any) -> list[float]:
    """Value, low and high, rounded so that the range still holds what it held."""
    value = one.value if isinstance(one, Range) else one.accuracy
    return [round(float(number), 6) for number in (value, one.low, one.high)]


def rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Round to four digits."""
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def share(flags: Tensor) -> float:
    """Share of true flags."""
    return round(float(flags.double().mean()), 6)


def write(path: Path, origin: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a results file; it keeps the rows of the kinds that are not among `rows`, and the origin of each kind."""
    old: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = old.get("origins", {}) | dict.fromkeys((row["kind"] for row in rows), origin)
    origins = {kind: found[kind] for kind in get_args(Kind) if kind in found}
    every = [
        row
        for kind, known in origins.items()
        for row in (rows if known is origin else old["rows"])
        if row["kind"] == kind
    ]
    joined = {
        field: separator.join(dict.fromkeys(one[field] for one in origins.values()))
        for field, separator in (("command", "; "), ("commit", ", "), ("hardware", "; "))
    }
    results_file.write(path, joined, every, origins=origins, summary=summarise(every))


def main() -> None:
    """Train, measure, and write the JSON."""
    torch.set_num_threads(1)
    os.nice(10)
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin = results_file.origin()
    tasks = [task for task in blind_tasks() if task.half == settings.half and task.kind in settings.kinds]
    data, rows = data_folder(settings.data), list[dict[str, Any]]()
    for task in track(tasks, f"{settings.half} half", console=Console(stderr=True)):
        rows += measure(task, train(task, settings.runs.absolute() / settings.half, data))
    write(settings.out / f"{settings.half}.json", origin, rows)


if __name__ == "__main__":
    main()
