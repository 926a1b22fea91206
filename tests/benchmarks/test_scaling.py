"""The benchmark of cost against size: what it grows, and what it calls linear. No test here takes a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import scaling  # noqa: E402


def row(factor, seconds, peak):
    return {
        "factor": factor,
        "images": 100 * factor,
        "epoch_seconds": seconds,
        "data_mib": 50.0 * factor,
        "peak_mib": peak,
    }


def test_growth_is_compared_with_the_first_size_and_linear_within_a_tenth():
    first, linear, slow, large = scaling.compared(
        [row(1, 10.0, 700.0), row(2, 21.0, 748.0), row(2, 23.0, 750.0), row(4, 40.0, 900.0)]
    )
    assert "met" not in first
    assert linear["time_over_images"] == pytest.approx(1.05)
    assert linear["memory_over_data"] == pytest.approx(0.96)
    assert (linear["met"], slow["met"], large["met"]) == (True, False, False)
    assert large["memory_over_data"] == pytest.approx(4 / 3)


@pytest.mark.slow
def test_a_run_on_the_embedded_task_writes_a_row_a_size(tmp_path):
    recipe = tmp_path / "short.toml"
    recipe.write_text('description = "short"\n[[stages]]\nalgorithm = "mutual_align"\nepochs = 1\nbatch_size = 512\n')
    out = tmp_path / "new" / "scaling.json"
    options = ["--task", "digits", "--recipe", str(recipe), "--factors", "1", "2", "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks/scaling.py"), *options]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, check=False, env=alone, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    report = json.loads(out.read_text())
    assert {"command", "commit", "hardware", "created", "rows"} <= report.keys()
    assert [entry["images"] for entry in report["rows"]] == [2 * 1437, 4 * 1437]
    assert report["rows"][1]["data_mib"] == 2 * report["rows"][0]["data_mib"]
    assert all(entry["epoch_seconds"] > 0 and entry["peak_mib"] > 100 for entry in report["rows"])
