"""Fixtures for the tests of benchmarks, which are scripts: imported by file name, and run through their `main`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

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
