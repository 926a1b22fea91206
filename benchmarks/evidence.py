"""What evidence without labels says about finished runs, next to the truth: one row per run and epoch; trains nothing.

Target labels are used to measure; the evidence sees none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import results_file
import torch
import tyro
from blind_summary import summarise
from blind_tasks import blind_tasks
from rich.console import Console
from torch import Tensor

from mutualign.errors import MutualignError
from mutualign.evaluation.alarms import SourceClasses, stage_alarms, verdict_alarms
from mutualign.evaluation.estimators import ESTIMATORS, RunOutputs, estimates
from mutualign.evaluation.few_labels import labelled_accuracy, labelled_gain, plan_labelling
from mutualign.evaluation.selection import best_epoch
from mutualign.evaluation.verdict import Evidence, Range, judge, paired_gain
from mutualign.methods import METHODS
from mutualign.runs.checkpoints import Which
from mutualign.runs.estimates import run_outputs
from mutualign.runs.folder import RunFolder

LABELS = 50  # images that are labelled in the test of few labels
IDENTICAL = "identical domains"  # the alarm that the images raise, not the run


@dataclass(frozen=True)
class Settings:
    """Compare evidence and truth on the complete runs below some folders."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders as given to `mutualign compare --out`"""
    out: Path = Path("results/evidence-photos.json")
    """where the numbers are written"""


@dataclass(frozen=True)
class About:
    """The task of some runs: its name, how the summary groups it, and what is known about it."""

    task: str
    kind: str
    half: str = ""  # of the blind test
    identical: bool = False  # whether source and target are drawn from the same distribution


@dataclass(frozen=True)
class Judged:
    """A run at one of its epochs, next to the truth."""

    folder: RunFolder
    outputs: RunOutputs
    right: Tensor  # which of the kept target test images are classified correctly
    labels: Tensor  # of these images


def measure(about: About, folders: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Return one row per run and epoch (the last one, and the one that the default validator selects).

    All runs must be on the same data. Raises MutualignError for a run without target labels.
    """
    rows = []
    keys = [(folder.config().recipe, folder.config().seed) for folder in folders]
    for which in ("last", "selected"):
        judged = [read(folder, which) for folder in folders]
        every = [one.outputs for one in judged]
        baselines = {
            (recipe.digest, seed): one
            for (recipe, seed), one in zip(keys, judged, strict=True)
            if recipe.is_source_only
        }
        for (recipe, seed), one in zip(keys, judged, strict=True):
            base = None if recipe.is_source_only else baselines.get((recipe.source_only().digest, seed))
            rows.append(facts(about, one, which) | evidence(one, base, every))
    return rows


def read(folder: RunFolder, which: Which) -> Judged:
    """Read a run's outputs at an epoch, and the labels of the same images."""
    outputs, labels = run_outputs(folder, which), folder.checkpoints.load("review")[0].get("labels")
    if labels is None:
        raise MutualignError(f"{folder.path}: evidence can only be measured on runs with target labels")
    return Judged(folder, outputs, outputs.predicted == labels, labels)


def facts(about: About, run: Judged, which: Which) -> dict[str, Any]:
    """Return what target labels say about a run, and which epochs and scores it has."""
    result, records = run.folder.require_result(), run.folder.metrics()
    epochs = [record for record in records if record.stage == records[-1].stage]
    recipe = run.folder.config().recipe
    shares = torch.bincount(run.labels, minlength=len(result.class_names or ())).double() / len(run.labels)
    change = (shares - torch.tensor(result.source_class_shares, dtype=torch.float64)).abs().sum() / 2
    row: dict[str, Any] = asdict(about) | {
        "class_shift": round(float(change), 4),  # total variation of the true class frequencies
        "recipe": recipe.name,
        "baseline": recipe.is_source_only,
        "seed": result.seed,
        "epoch": which,
        "images": len(run.labels),
        "accuracy": share(run.right),
        "source_accuracy": round(run.outputs.source_accuracy, 4),
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
    names = [alarm.name for alarm in verdict_alarms(verdict, ours.source_accuracy)]
    predicted = ours.predicted
    plan = plan_labelling(predicted, None if theirs is None else theirs.predicted, LABELS, result.data)
    row: dict[str, Any] = {
        "bound": round(verdict.lower_bound or 0.0, 4),
        "estimates": {name: ranged(one) for name in ESTIMATORS if (one := found[name]) is not None},
        "alarms": list(dict.fromkeys([*training_alarms(run.folder), *names])),
        "verdict": verdict.kind,
        "labelled_accuracy": ranged(labelled_accuracy(predicted[plan.random], run.labels[plan.random])),
    }
    if base is not None:
        other = base.outputs.predicted
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


def training_alarms(folder: RunFolder) -> list[str]:
    """Names of a run's alarms but those of the verdict, by today's rules."""
    result, records, recipe = folder.require_result(), folder.metrics(), folder.config().recipe
    source = SourceClasses(result.class_names or (), result.source_class_shares or ())
    names = [alarm.name for alarm in result.alarms or () if alarm.name == IDENTICAL]
    for number, stage in enumerate(recipe.stages):
        epochs = [record for record in records if record.stage == number]
        learns = METHODS[stage.method].method.uses_source
        names += [alarm.name for alarm in stage_alarms(epochs, source, learns_source=learns)]
    return names


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


def about(task: str) -> About:
    """Describe a task; the summary separates the halves of the blind test."""
    known = {one.name: one for one in blind_tasks()}.get(task)
    return About(task, f"{known.kind}, {known.half} half", known.half, known.identical) if known else About(task, task)


def complete_runs(paths: Sequence[Path]) -> tuple[list[RunFolder], int]:
    """Return the complete runs below some folders, and how many runs there are in all."""
    found = sorted(config.parent for path in paths for config in path.absolute().glob("*/*/seed-*/config.toml"))
    complete = [folder for path in found if (folder := RunFolder.open(path)).is_complete]
    if not complete:
        raise MutualignError("no complete run below the folders given")
    return complete, len(found)


def main() -> None:
    """Measure and write the JSON."""
    torch.set_num_threads(1)
    settings, own = tyro.cli(Settings, description=Settings.__doc__), results_file.origin()
    try:
        folders, found = complete_runs(settings.runs)
        by_data: dict[str, list[RunFolder]] = defaultdict(list)
        for folder in folders:
            by_data[folder.config().data].append(folder)
        rows = [row for same in by_data.values() for row in measure(about(same[0].require_result().task), same)]
    except MutualignError as error:
        raise SystemExit(f"benchmarks/evidence.py: {error}") from None
    Console(stderr=True).print(f"{len(folders)} of {found} runs are complete")
    origin = results_file.origin_of_runs(folder.require_result() for folder in folders)
    commits = ", ".join(dict.fromkeys([*origin["commit"].split(", "), own["commit"]]))
    results_file.write(settings.out, origin | {"commit": commits}, rows, summary=summarise(rows))


if __name__ == "__main__":
    main()
