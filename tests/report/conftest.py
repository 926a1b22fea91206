"""Tiny runs that all tests of reports share: with target labels, without, and degenerate ones."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mutualign.data.task import Task
from mutualign.data.types import TargetDataset, UnlabelledImages
from mutualign.recipes import Recipe, load_recipe
from mutualign.report.embedding import embed
from mutualign.report.html import write_report
from mutualign.runs.experiment import Experiment
from tests.tiny_task import make_tiny_task

ARCHIVES = sorted((Path(__file__).parents[1] / "fixtures" / "run_folders").glob("format-*.tar.xz"))
STAGES = ["stages.0.batch_size=20", "stages.1.batch_size=20", "stages.1.options.threshold=0.34"]


def train(
    task: Task, path: Path, recipe: str = "source_only", seed: int = 0, epochs: int = 1, name: str = "", *changes: str
) -> Path:
    """Train a run of one epoch per stage, or more in the first."""
    Experiment.start(replace(short(recipe, epochs, *changes), name=name or recipe), task, seed, path).run()
    return path


def short(recipe: str, epochs: int, *changes: str) -> Recipe:
    """A recipe of the package with one epoch per stage, or more in the first."""
    stages = STAGES if recipe == "mani" else STAGES[:1]
    lengths = [f"stages.0.epochs={epochs}", *(["stages.1.epochs=1"] if recipe == "mani" else [])]
    return load_recipe(recipe, [*stages, *lengths, "stages.0.optim.lr=1e-2", *changes])


def without_labels(task: Task) -> Task:
    """The same task without target labels."""
    train_set, test_set = (TargetDataset(one.images, None) for one in (task.target_train, task.target_test))
    return replace(task, target_train=train_set, target_test=test_set)


def one_class_task() -> Task:
    """The tiny task with a target of equal images."""
    task = without_labels(make_tiny_task())
    grey = TargetDataset(UnlabelledImages(torch.full((20, 12, 12, 3), 128, dtype=torch.uint8)), None)
    return replace(task, target_train=grey, target_test=grey)


def edit_json(path: Path, **changes: object) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module", autouse=True)
def embedded_once():
    """Equal features are embedded once, as that takes most of a page's time; test_plots.py tests it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "mutualign.report.output_sections.embed", lambda rows: _embed(rows.dtype, rows.shape, rows.tobytes())
        )
        yield


@cache
def _embed(dtype, shape, content):
    return embed(np.frombuffer(content, dtype).reshape(shape))


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """Source only, mani and its fair baseline with target labels, one seed each, and a dann run that never trained."""
    out, task = tmp_path_factory.mktemp("labelled"), make_tiny_task()
    fair = replace(short("mani", 2).source_only(), name="fair")
    Experiment.start(fair, task, 0, out / "tiny" / fair.name / "seed-0").run()
    for recipe in ("source_only", "mani"):
        train(task, out / "tiny" / recipe / "seed-0", recipe, epochs=2)
    Experiment.start(load_recipe("dann"), task, 0, out / "tiny" / "dann" / "seed-0")
    return out


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory):
    """Two seeds of dann and of source only under another name, which learn the source, without target labels."""
    out, task = tmp_path_factory.mktemp("unlabelled"), without_labels(make_tiny_task())
    for seed in (0, 1):
        train(task, out / "tiny" / "baseline" / f"seed-{seed}", seed=seed, epochs=2, name="baseline")
        train(task, out / "tiny" / "dann" / f"seed-{seed}", "dann", seed, epochs=2)
    return out


@pytest.fixture(scope="session")
def one_class(tmp_path_factory):
    """An adapted run of one epoch, alone, on a target of equal images: one class predicted, equal features."""
    out = tmp_path_factory.mktemp("one_class")
    steps = "stages.0.epoch_steps=12"  # enough to learn the source
    return train(one_class_task(), out / "tiny" / "dann" / "seed-0", "dann", 0, 1, "", steps)


@pytest.fixture(scope="session", params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def early(request, tmp_path_factory):
    """Runs that an early version made: NAME/complete and NAME/stopped."""
    folder = tmp_path_factory.mktemp("early") / "tiny"
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def pages(labelled, unlabelled, tmp_path_factory):
    """The reports of a run and of a comparison, with and without target labels."""
    out = tmp_path_factory.mktemp("pages")
    return {
        "run": write_report(labelled / "tiny" / "mani" / "seed-0", out / "run.html"),
        "comparison": write_report(labelled, out / "comparison.html"),
        "unlabelled run": write_report(unlabelled / "tiny" / "dann" / "seed-0", out / "unlabelled_run.html"),
        "unlabelled comparison": write_report(unlabelled, out / "unlabelled.html"),
    }
