"""Trained runs that the tests share; a test that changes one copies it."""

from __future__ import annotations

import shutil

import pytest

from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from tests.conftest import make_tiny_task
from tests.runs.samples import recipe


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A complete run of two stages, dann and mani, on the tiny task; each has two epochs of three steps."""
    path = tmp_path_factory.mktemp("whole") / "run"
    Experiment.start(recipe("dann", "mani"), make_tiny_task(), 0, path).run()
    return RunFolder.open(path)


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of the complete run, to be changed."""
    shutil.copytree(whole.path, tmp_path / "copied")
    return RunFolder.open(tmp_path / "copied")


@pytest.fixture(scope="session")
def seeds(tmp_path_factory):
    """Two complete source-only runs, with the seeds 0 and 1."""
    out = tmp_path_factory.mktemp("seeds")
    for seed in (0, 1):
        Experiment.start(recipe("source_only"), make_tiny_task(), seed, out / f"seed-{seed}").run()
    return [RunFolder.open(out / f"seed-{seed}") for seed in (0, 1)]
