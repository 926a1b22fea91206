"""Trained runs that the tests share; a test that changes one copies it."""

from __future__ import annotations

import shutil
import sys

import pytest

from mutualign.data.datasets import TASKS
from mutualign.io import plugins
from mutualign.methods import METHODS
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from tests.runs.many import PLUGIN, RECIPE
from tests.runs.samples import recipe
from tests.tiny_task import make_tiny_task


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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe per faulty method, in which the plugin is loaded; it is the current folder."""
    folder = tmp_path_factory.mktemp("jobs")
    for method, epochs in {
        "steady": 3,
        "once": 3,
        "always": 3,
        "broken": 3,
        "patient": 3,
        "mortal": 3,
        "dann": 3,
    }.items():
        (folder / f"{method}.toml").write_text(RECIPE.format(method=method, epochs=epochs))
    registries = [(METHODS, dict(METHODS)), (TASKS, dict(TASKS))]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FAULTS", str(folder))
        patch.setenv("COLUMNS", "160")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(plugins, "_loaded", [])
        patch.setattr(sys, "path", list(sys.path))
        plugins.load_plugin(str(PLUGIN))
        yield folder
    for registry, before in registries:
        registry.clear()
        registry.update(before)
    del sys.modules["faulty"]
