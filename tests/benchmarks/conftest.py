"""Fixtures for the tests of benchmarks, which are scripts: imported by file name, and run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


@pytest.fixture
def run_benchmark(tmp_path):
    """Run a benchmark as a user does, on one thread and no GPU; return its results file and its stderr."""

    def run(name, *options):
        out = tmp_path / "new" / "results.json"
        command = [sys.executable, str(BENCHMARKS / name), *map(str, options), "--out", str(out)]
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, check=False, env=alone, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        results = json.loads(out.read_text())
        assert {"command", "commit", "hardware", "created", "rows"} <= results.keys()
        return results, done.stderr

    return run
