"""Ablation of the two mutual informations in `mutual_align`: neither, each alone and both, in several tasks.

One is of source and target images of a class, over pairs (`mi_weight`); the other of target images and their predicted
labels, information maximisation (`information_weight`). The rest of the method is as in the recipe `fast`, or only the
cross-entropy on the source. Finished runs are read from the results file, so that a run that was stopped resumes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import results_file
import torch
import tyro
from label_shift import PAIRS, shifted
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mutualign.data.fetch.data_files import data_folder
from mutualign.data.task import Task
from mutualign.data.types import Batch
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.methods import METHODS
from mutualign.methods.mutual_align import MutualAlign, MutualAlignConfig
from mutualign.methods.registry import register_method
from mutualign.recipes import Recipe, load_recipe, parse_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.loading import load_task
from mutualign.runs.statistics import Interval

ON_FEATURES = "mutual_align_on_features"
IMAGES = ("digits", "mnist-mnistm@6000")
PHOTOS = tuple(f"office31:{pair}" for pair in PAIRS)
BATCH, PHOTO_STEPS = 64, 240  # as in the equal conditions of all methods on photos
RARE = 0.15  # of the images of half of the target's classes, under label shift
TERMS = {  # mi_weight and information_weight
    "neither": (0.0, 0.0),
    "pairs": (1.0, 0.0),
    "labels": (0.0, 1.0),
    "both": (1.0, 1.0),
}
GAINS = (("pairs", "neither"), ("labels", "neither"), ("both", "labels"), ("both", "pairs"))
OTHERS = {  # the other losses on the target
    "reversal and self-training": {},
    "none": {"self_training_weight": 0.0, "domain": {"weight": 0.0}},
}


@dataclass(frozen=True)
class Settings:
    """Measure what the two mutual informations are worth in `mutual_align`, alone and together."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    tasks: tuple[str, ...] = (*IMAGES, *PHOTOS)
    """images, and pairs of photos; all with the classes as they are and with half of the target's classes rare"""
    seeds: int = 3
    """how many seeds: 0, 1, 2, ..."""
    steps: int = 160
    """steps of a run on images, in whole passes; on photos 240"""
    out: Path = Path("results/informations.json")
    """where the numbers are written, after each run; the runs that it has are not repeated"""


class MutualAlignOnFeatures(MutualAlign):
    """MutualAlign on features of photos: the network sees one of several views that are kept of each photo."""

    needs_images = False

    def strong_views(self, batch: Batch) -> torch.Tensor:
        return batch.images


@contextmanager
def method_on_features() -> Iterator[None]:
    """Context in which recipes can name `ON_FEATURES`."""
    register_method(ON_FEATURES, MutualAlignConfig)(MutualAlignOnFeatures)
    try:
        yield
    finally:
        del METHODS[ON_FEATURES]


def recipe_of(task: str, others: str, terms: str, steps: int) -> Recipe:
    """Return `fast` in short, or for photos the equal conditions of all methods, with some of the losses."""
    base = load_recipe("equal_photos" if task in PHOTOS else "fast", [])
    data = base.to_dict()
    pairs, labels = TERMS[terms]
    stage = data["stages"][0] | {"epochs": 1, "epoch_steps": PHOTO_STEPS if task in PHOTOS else steps}
    stage |= {"batch_size": BATCH, "method": ON_FEATURES if task in PHOTOS else "mutual_align"}
    stage |= {"options": {**OTHERS[others], "mi_weight": pairs, "information_weight": labels}}
    return parse_recipe(data | {"name": terms, "stages": [stage]}, "benchmarks/informations.py")


def cases(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield what is trained, seed by seed. Photos are trained without other losses only."""
    for others, seed, shift, task, terms in product(
        OTHERS, range(settings.seeds), (False, True), settings.tasks, TERMS
    ):
        if task not in PHOTOS or others == "none":
            yield {"task": task, "label_shift": shift, "others": others, "terms": terms, "seed": seed}


def measure(case: dict[str, Any], task: Task, steps: int) -> dict[str, Any]:
    """Train one case, and return its row."""
    recipe = recipe_of(case["task"], case["others"], case["terms"], steps)
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment.start(recipe, task, case["seed"], Path(folder) / "run")
        experiment.run()
        result, last = experiment.folder.require_result(), experiment.folder.metrics()[-1]
    found = {"target_accuracy": last.target_accuracy, "source_accuracy": last.source_accuracy}
    return case | found | {"score": last.scores[DEFAULT_VALIDATOR], "hardware": result.hardware}


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return by task the accuracies of `neither`, and the gains in the same runs: by seed, and for photos by pair.

    For photos, a run is a pair of domains with a seed. Only runs that have been trained with all terms count.
    """
    found: dict[tuple[str, bool, str], dict[str, dict[tuple[str, int], float]]] = {}
    for row in rows:
        key = (row["task"].partition(":")[0], row["label_shift"], row["others"])
        by_terms = found.setdefault(key, {terms: {} for terms in TERMS})
        by_terms[row["terms"]][row["task"], row["seed"]] = row["target_accuracy"]
    lines = []
    for (task, shift, others), by_terms in found.items():
        runs = sorted(set.intersection(*(set(by_run) for by_run in by_terms.values())))
        photos = task == "office31"
        units = {unit: [run for run in runs if unit in run] for run in runs for unit in [run[0 if photos else 1]]}
        if units:
            gains = {
                f"{terms} - {base}": [
                    mean(by_terms[terms][run] - by_terms[base][run] for run in own) for own in units.values()
                ]
                for terms, base in GAINS
            }
            neither = [mean(by_terms["neither"][run] for run in own) for own in units.values()]
            line = {"task": task, "label_shift": shift, "others": others, "unit": "pairs" if photos else "seeds"}
            lines.append(line | {"runs": len(runs), "neither": neither, "gains": gains})
    return lines


def table(summary: list[dict[str, Any]]) -> Table:
    """Lay out one line per task and other losses, with 95 % intervals over seeds, or over pairs."""
    shown = Table("task", "rare classes", "other losses", "neither", *summary[0]["gains"] if summary else ())
    for line in summary:
        gains = (Interval.of(values).percent(sign="+") for values in line["gains"].values())
        rare = "half" if line["label_shift"] else "none"
        shown.add_row(line["task"], rare, line["others"], Interval.of(line["neither"]).percent(), *gains)
    return shown


def main() -> None:
    """Train what the results file lacks."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin, key = results_file.origin(), ("task", "label_shift", "others", "terms", "seed")
    rows = results_file.rows_of(settings.out)
    done = {tuple(row[name] for name in key) for row in rows}
    missing = [case for case in cases(settings) if tuple(case.values()) not in done]
    known: tuple[Any, Task | None] = (None, None)
    with method_on_features():
        for case in track(missing, console=Console(stderr=True)):
            name, shift = case["task"], case["label_shift"]
            if known[0] != (name, shift):
                recipe = recipe_of(name, case["others"], case["terms"], settings.steps)
                task = load_task(name, data_folder(settings.data), recipe)
                known = (name, shift), shifted(task, RARE) if shift else task
            assert known[1] is not None
            rows.append(measure(case, known[1], settings.steps))
            results_file.write(settings.out, origin, rows, summary=summarise(rows))
    Console().print(table(summarise(rows)))


if __name__ == "__main__":
    main()
