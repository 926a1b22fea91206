"""One tiny run of each kind, made once for all tests of reports, and two short ones on digits for the demo."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mutualign.data.datasets import find_task
from mutualign.data.types import TargetDataset, UnlabelledImages
from mutualign.nn.backbones import BACKBONES
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from tests.conftest import make_tiny_task

SHORT = ["stages.0.epochs=2", "stages.1.epochs=1", "stages.0.batch_size=20", "stages.1.batch_size=20"]
EAGER = ["stages.1.options.threshold=0.34", "stages.0.learning_rate=1e-2"]


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory):
    """Folder of a comparison on the tiny task: source_only and mani, one seed each, and a run that never began."""
    out, task = tmp_path_factory.mktemp("runs"), make_tiny_task()
    for name, overrides in (("source_only", SHORT[::2]), ("mani", SHORT + EAGER)):
        Experiment.start(load_recipe(name, overrides), task, 0, out / "tiny" / name / "seed-0").run()
    Experiment.start(load_recipe("dann"), task, 0, out / "tiny" / "dann" / "seed-0")
    return out


@pytest.fixture(scope="session")
def digit_runs(tmp_path_factory):
    """Run folders of `fast` and of source only on digits, in this order, trained for a few steps."""
    out = tmp_path_factory.mktemp("digits")
    task = find_task("digits").load(out)
    for name in ("fast", "source_only"):
        recipe = load_recipe(name, ["stages.0.epochs=1", "stages.0.epoch_steps=12"])
        Experiment.start(recipe, task, 0, out / "digits" / name / "seed-0").run()
    return [out / "digits" / name / "seed-0" for name in ("fast", "source_only")]


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory):
    """Folder of one run for each backbone, and of one on grey images only."""
    out, task = tmp_path_factory.mktemp("runs"), make_tiny_task()
    for name in BACKBONES:
        Experiment.start(load_recipe("source_only", [*SHORT[::2], f"backbone={name}"]), task, 0, out / name).run()
    source = task.source_train
    grey = TargetDataset(UnlabelledImages(255 - source.images.pixels), source.labels)
    recipe = load_recipe("source_only", [*SHORT[::2], "precision=bf16"])
    Experiment.start(recipe, replace(task, target_train=grey, target_test=grey), 0, out / "grey").run()
    return out
