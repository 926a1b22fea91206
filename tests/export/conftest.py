"""Tiny finished runs to export, trained once per session."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from mutualign.data.types import TargetDataset, UnlabelledImages
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from tests.tiny_task import make_tiny_task

SHORT = ["stages.0.epochs=2", "stages.0.batch_size=20"]


@pytest.fixture(scope="session")
def train_tiny(tmp_path_factory):
    """Train a few steps of source only on the tiny task: grey source, coloured target, 12x12 pixels."""

    def train(*overrides, grey=False, scale=1):
        task = make_tiny_task()
        for part in (
            task.source_train.images,
            task.source_test.images,
            task.target_train.images,
            task.target_test.images,
        ):
            larger = part.pixels.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
            object.__setattr__(part, "pixels", larger)
        if grey:
            target = TargetDataset(UnlabelledImages(255 - task.source_train.images.pixels), task.source_train.labels)
            task = replace(task, target_train=target, target_test=target)
        run = tmp_path_factory.mktemp("runs") / "run"
        Experiment.start(load_recipe("source_only", [*SHORT, *overrides]), task, 0, run).run()
        return run

    return train


@pytest.fixture(scope="session")
def finished(train_tiny):
    """A finished run with the backbone two_block_cnn: convolutions, batch norm and dropout. Read only."""
    return train_tiny("backbone=two_block_cnn")


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to write into or to change."""
    return shutil.copytree(finished, tmp_path / "run")
