"""The benchmark of a busy machine: its settings reach OpenMP, its loops end, its rows. No test here measures a time."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest

if sys.platform != "linux":
    pytest.skip("needs Linux", allow_module_level=True)

import busy


def test_the_loops_end_with_their_context(monkeypatch):
    started = []

    def popen(command, **options):
        started.append(original(command, **options))
        return started[-1]

    original = busy.subprocess.Popen
    monkeypatch.setattr(busy.subprocess, "Popen", popen)
    with busy.busy_loops(2):
        assert [loop.poll() for loop in started] == [None, None]
    assert all(loop.poll() is not None for loop in started)


RECIPE = """
backbone = "mlp"
precision = "float32"
[[stages]]
method = "dann"
epochs = 1
batch_size = 16
"""


def test_the_results_have_every_setting_idle_and_busy_and_what_is_required(run_benchmark, monkeypatch, tmp_path):
    (tmp_path / "small.toml").write_text(RECIPE)
    environments, loops = [], []

    def in_a_thread(environment, *arguments):
        environments.append(environment)
        return ThreadPoolExecutor(1, initializer=busy.start, initargs=arguments)

    monkeypatch.setattr(busy, "process_with", in_a_thread)
    monkeypatch.setattr(busy, "busy_loops", lambda count: loops.append(count) or nullcontext())
    monkeypatch.setattr(busy, "_step", [])
    options = ["--recipe", tmp_path / "small.toml", "--rounds", "1", "--spins", "5000", "--loops", "3"]
    results, _ = run_benchmark("busy.py", *options, "--idle-seconds", "0", "--busy-seconds", "0")
    names = ["mutualign", "OpenMP's default", "no spinning", "one thread", "5000 spins"]
    kinds = ["idle step", "busy step", "idle step / idle step by default", "busy step / idle step"]
    assert [(row["name"], row["case"]) for row in results["rows"]] == [(kind, name) for kind in kinds for name in names]
    assert loops == [3] * len(names)
    assert environments[-1] == {"GOMP_SPINCOUNT": "5000"}
    required = {(row["name"], row["case"]): row["required"] for row in results["rows"] if "required" in row}
    assert required == {(kinds[2], "mutualign"): "<= 1.03", (kinds[3], "mutualign"): "<= 3"}
    by_default = next(row for row in results["rows"] if row["case"] == "OpenMP's default" and row["name"] == kinds[2])
    assert by_default["value"] == 1
