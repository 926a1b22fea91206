"""The space of benchmarks/spaces/ is that of the sweep in results/sweep.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mutualign.runs.sweeps.space import load_space

ROOT = Path(__file__).parents[2]


def test_the_committed_space_is_that_of_the_measured_sweep(monkeypatch):
    monkeypatch.chdir(ROOT)
    space = load_space(Path("benchmarks/spaces/fast.toml"), ["stages.0.epoch_steps=40"])
    rows = json.loads((ROOT / "results" / "sweep.json").read_text(encoding="utf-8"))["rows"]
    measured = next(row["space"] for row in rows if row["task"] == "digits")
    assert {name: asdict(parameter) for name, parameter in space.parameters.items()} == measured
    assert space.unchanged() is not None
