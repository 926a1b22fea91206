"""Fixtures for the tests of benchmarks, which are scripts: imported by file name, and run through their `main`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from tests.tiny_task import make_tiny_task

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


@pytest.fixture
def run_benchmark(tmp_path, monkeypatch, capfd):
    """Run a benchmark with command-line options on the CPU; return its results file and its stderr."""

    def run(name, *options):
        out = tmp_path / "new" / "results.json"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}", *map(str, options), "--out", str(out)])
        importlib.import_module(name.removesuffix(".py")).main()
        results = json.loads(out.read_text())
        assert {"command", "commit", "hardware", "created", "rows"} <= results.keys()
        return results, capfd.readouterr().err

    return run


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """The folders of a source-only and an adapted run, and the rows about their evidence."""
    import evidence  # of benchmarks/

    out, task = tmp_path_factory.mktemp("measured"), make_tiny_task()
    recipe = load_recipe("dann", ["stages.0.epochs=2", "stages.0.batch_size=25"])
    folders = []
    for one in (recipe.source_only(), recipe):
        path = out / "tiny" / one.name / "seed-0"
        Experiment.start(one, task, 0, path).run()
        folders.append(RunFolder.open(path))
    return folders, evidence.measure(evidence.About("tiny", "images"), folders)
