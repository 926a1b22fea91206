"""The benchmark of runs side by side: its commands train, and rows. No test here measures a time."""

from __future__ import annotations

import jobs


def test_the_rows_have_both_ways_and_their_ratio(run_benchmark, monkeypatch):
    seconds = {1: 8.0, 2: 4.0}
    monkeypatch.setattr(jobs, "seconds_of", lambda backbone, runs, number: seconds[number])
    results, _ = run_benchmark("jobs.py", "--backbones", "mlp", "--runs", "3")
    names = ["3 runs, --jobs 1", "3 runs, --jobs 2", "throughput, --jobs 2 / --jobs 1"]
    assert [(row["name"], row["value"]) for row in results["rows"]] == list(zip(names, [8.0, 4.0, 2.0], strict=True))
    assert results["rows"][2]["met"]


def test_a_comparison_trains_every_run(monkeypatch):
    monkeypatch.setattr(jobs, "SMALL", ("stages.0.epochs=1", "stages.0.epoch_steps=1"))
    assert jobs.seconds_of("mlp", 1, 1) > 0
