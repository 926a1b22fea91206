"""Does it matter that source test and target test of `digits` are the same digits? Halves that share them or do not.

Source accuracy, and all evidence with it, is measured on digits whose labels the target test has too. The tests are cut
into rows of even and of odd number. Evidence from one half of the source is judged by the target accuracy of the same
half, which has the same digits, and of the other half, which has others; the other way round too, so that it does not
matter which half is easier. The mean of same less that of other digits is what sharing them is worth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import results_file
import torch
import tyro
from rich.console import Console
from rich.progress import track

from mutualign.data.fetch.data_files import data_folder
from mutualign.data.task import Task
from mutualign.evaluation.alarms import verdict_alarms
from mutualign.evaluation.discrepancy import bound_accuracy
from mutualign.evaluation.estimators import ESTIMATORS, RunOutputs
from mutualign.evaluation.measure import Evaluator
from mutualign.evaluation.records import EpochRecord
from mutualign.evaluation.selection import best_epoch
from mutualign.evaluation.validators import VALIDATORS
from mutualign.evaluation.verdict import Evidence, judge
from mutualign.methods import Method
from mutualign.recipes import Recipe, load_recipe
from mutualign.runs.checkpoints import Checkpoints
from mutualign.runs.loading import load_task
from mutualign.runs.statistics import Interval
from mutualign.training.callbacks import Callbacks, Epoch
from mutualign.training.distributed import make_fabric
from mutualign.training.loop import train

HALVES = ("even", "odd")
ESTIMATES = ("average_thresholded_confidence", "difference_of_confidences")  # those from a single run


@dataclass(frozen=True)
class Settings:
    """Train recipes on `digits`, measure every epoch on both halves of the tests, and compare."""

    recipes: tuple[str, ...] = ("source_only", "dann", "fast")
    seeds: int = 4
    """how many seeds: 0, 1, 2, ..."""
    epochs: int = 6
    """epochs of the first stage,"""
    steps: int = 25
    """and steps of each"""
    task: str = "digits"
    """a task whose two tests have the same digits in the same order"""
    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    out: Path = Path("results/split.json")
    """where the numbers are written"""


@dataclass(frozen=True)
class Half:
    """What one half of both tests says about a run."""

    records: Sequence[EpochRecord]
    outputs: Mapping[str, torch.Tensor]  # of the last epoch


def half_of(task: Task, number: int) -> Task:
    """Keep the rows of even (0) or odd (1) number of both tests."""
    rows = torch.arange(number, len(task.source_test), 2)
    return replace(task, source_test=task.source_test.subset(rows), target_test=task.target_test.subset(rows))


def train_and_measure(task: Task, recipe: Recipe, seed: int) -> list[Half]:
    """Train a recipe once, and measure each epoch of its last stage on both halves."""
    fabric = make_fabric(recipe.precision)
    evaluators = [Evaluator(half_of(task, number), seed, fabric) for number in range(len(HALVES))]
    records: list[list[EpochRecord]] = [[] for _ in HALVES]
    outputs: list[dict[str, torch.Tensor]] = [{} for _ in HALVES]
    last = len(recipe.stages) - 1

    def measure(method: Method, epoch: Epoch) -> None:
        if epoch.stage < last:
            return
        for number, evaluator in enumerate(evaluators):
            record, _ = evaluator.epoch(method, recipe.stages[last].method, epoch, None)
            records[number].append(record)
            if epoch.number == recipe.stages[last].epochs:
                outputs[number] = evaluator.outputs(method.output_model)

    with tempfile.TemporaryDirectory() as folder:
        source, target, classes = task.source_train, task.target_train.images, len(task.class_names)
        store = Checkpoints(Path(folder))
        train(recipe, source, target, task.shape, classes, seed, store, fabric, Callbacks(on_epoch=measure))
    return [Half(*both) for both in zip(records, outputs, strict=True)]


def judged(evidence: Half, truth: Half) -> dict[str, float]:
    """Return what evidence from one half is worth on a half of the target test: shares, by name.

    epoch: NAME      target accuracy at the epoch that a validator chooses
    error: NAME      of the lower bound or an estimate, less the true accuracy at the last epoch
    alarm: NAME      1 if the verdict's alarm is raised without labels
    """
    accuracy = [record.target_accuracy or 0.0 for record in truth.records]
    found = {
        f"epoch: {name}": accuracy[evidence.records.index(best_epoch(evidence.records, name))] for name in VALIDATORS
    }
    source, target = evidence.outputs, truth.outputs
    run = RunOutputs(source["source_logits"], source["source_labels"], target["target_logits"], "", 0, 0.0)
    found["error: lower bound"] = bound_accuracy(run) - accuracy[-1]
    for name in ESTIMATES:
        estimate = ESTIMATORS[name](run, [run])
        if estimate is not None:
            found[f"error: {name}"] = estimate.accuracy - accuracy[-1]
    verdict = judge(Evidence(run, None))
    raised = {alarm.name for alarm in verdict_alarms(verdict, run.source_accuracy)}
    return found | {"alarm: low target accuracy": float("low target accuracy" in raised)}


def compare(halves: Sequence[Half]) -> dict[str, dict[str, float]]:
    """By name: the mean over both halves of the source, judged on the same and on the other digits."""
    same = [judged(half, half) for half in halves]
    other = [judged(evidence, truth) for evidence, truth in (halves, halves[::-1])]
    return {name: {"same": _mean(same, name), "other": _mean(other, name)} for name in same[0]}


def _mean(cells: Sequence[Mapping[str, float]], name: str) -> float:
    return round(sum(cell[name] for cell in cells) / len(cells), 6)


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By name, in points: means over runs with same and with other digits, and the difference with its interval."""
    lines = []
    for name in rows[0]["found"]:
        pairs = [row["found"][name] for row in rows]
        difference = Interval.of([100 * (pair["same"] - pair["other"]) for pair in pairs])
        means = {key: 100 * sum(pair[key] for pair in pairs) / len(pairs) for key in ("same", "other")}
        lines.append({"what": name, **means, "difference": difference.mean, "half_width": difference.half_width})
    return lines


def main() -> None:
    """Train, compare, write the JSON."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin = results_file.origin()
    lengths = [f"stages.0.epochs={settings.epochs}", f"stages.0.epoch_steps={settings.steps}"]
    recipes = {name: load_recipe(name, lengths) for name in settings.recipes}
    task = load_task(settings.task, data_folder(settings.data), next(iter(recipes.values())))
    rows = []
    for seed in track(range(settings.seeds), console=Console(stderr=True)):
        for name, recipe in recipes.items():
            rows.append({"recipe": name, "seed": seed, "found": compare(train_and_measure(task, recipe, seed))})
    results_file.write(settings.out, origin, rows, summary=summarise(rows))


if __name__ == "__main__":
    main()
