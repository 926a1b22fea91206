"""The benchmark of time to accuracy: its clock, its limit and its rows. No test here takes a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import time_to_accuracy  # noqa: E402

from mutualign.recipes import load_recipe  # noqa: E402


def record(stage, seconds, accuracy):
    return {"stage": stage, "train_seconds": seconds, "target_accuracy": accuracy}


def test_the_clock_adds_the_seconds_of_earlier_stages_and_takes_the_first_passing_of_a_goal():
    clock = time_to_accuracy.Clock(limit=45.0)
    for entry in [record(0, 10.0, 0.5), record(0, 20.0, 0.9), record(1, 12.0, 0.88), record(1, 25.0, 0.98)]:
        assert not clock.should_stop()
        clock.epoch(entry)
    assert clock.curve == [(10.0, 0.5), (20.0, 0.9), (32.0, 0.88), (45.0, 0.98)]
    assert (clock.seconds_to(0.87), clock.seconds_to(0.97), clock.seconds_to(0.985)) == (20.0, 45.0, None)
    clock.epoch(record(1, 26.0, 0.98))
    assert clock.should_stop()


@pytest.mark.parametrize(("limit", "complete", "epochs"), [(600.0, True, 3), (0.0, False, 1)])
def test_a_row_has_the_curve_up_to_the_end_or_the_limit(tiny_task, limit, complete, epochs):
    recipe = load_recipe("source_only", ["stages.0.epochs=3", "stages.0.batch_size=10"])
    row = time_to_accuracy.measure(recipe, tiny_task, 0, limit)
    assert row["complete"] is complete
    assert len(row["curve"]) == epochs
    assert set(row["seconds"]) == {"87", "97", "98.5"}
    assert (row["recipe"], row["task"], row["seed"]) == ("source_only", "tiny", 0)


@pytest.mark.slow
def test_a_run_on_the_embedded_task_writes_a_row_a_recipe_and_seed(tmp_path):
    recipe = tmp_path / "short.toml"
    recipe.write_text('description = "short"\n[[stages]]\nalgorithm = "source_only"\nepochs = 1\n')
    out = tmp_path / "new" / "speed.json"
    options = ["--task", "digits", "--recipes", str(recipe), "--seeds", "2", "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks/time_to_accuracy.py"), *options]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, check=False, env=alone, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    report = json.loads(out.read_text())
    assert {"command", "commit", "hardware", "created", "limit_seconds", "rows"} <= report.keys()
    assert [(row["recipe"], row["seed"], row["complete"]) for row in report["rows"]] == [
        ("short", 0, True),
        ("short", 1, True),
    ]
