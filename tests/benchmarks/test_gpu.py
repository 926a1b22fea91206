"""The benchmark for GPUs, with everything in little on the CPU; and its draws, which are those of the CPU."""

from __future__ import annotations

import json
from contextlib import nullcontext

import gpu
import pytest
import torch
from jaxtyping import config as jaxtyping_config

from mutualign.errors import MutualignError
from mutualign.nn.randomness import random_bytes


def test_draws_for_another_device_are_those_of_the_cpu():
    def draw(device):
        return [
            torch.rand(3, device=device),
            torch.randn((2, 2), device=device),
            torch.rand_like(torch.zeros(2, device=device)),
            torch.randint(9, (4,), device=device),
            random_bytes(9, torch.device(device)),
            torch.randperm(5, device=device),
        ]

    torch.manual_seed(0)
    expected = [*draw("cpu"), torch.rand(1)]
    torch.manual_seed(0)
    with gpu.DrawnOnCPU():
        found = draw("cpu")
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=False))
    torch.manual_seed(0)
    with gpu.DrawnOnCPU():
        elsewhere = draw("meta")  # a device without a generator and without values
    assert {str(one.device) for one in elsewhere} == {"meta"}
    assert [(one.shape, one.dtype) for one in elsewhere] == [(one.shape, one.dtype) for one in expected[:-1]]
    assert torch.equal(torch.rand(1), expected[-1])  # the CPU's generator has made all of them


@pytest.fixture
def unchecked_shapes():
    """torch's compiler cannot trace the checks of shapes that tests add."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_dry_run_does_everything_and_writes_its_rows(run_benchmark, tmp_path):
    # Two processes cost as much as all else, and tests/training/test_processes.py compares them with one.
    results, progress = run_benchmark("gpu.py", "--dry-run", "--skip", gpu.TWO_GPUS, "--runs", tmp_path / "runs")
    assert (results["failed"], results["left_out"]) == ({}, [gpu.TWO_GPUS])
    rows = {(row["name"], row["case"]): row for row in results["rows"]}
    for method in ("dann", "mutual_align"):
        assert rows[gpu.GOLDEN, method]["met"], method
    for name in ("dann", "fast"):
        assert rows[gpu.COMPILED, f"{name}, loss_class"]["met"]
    rates = {case.partition(", bf16")[0].partition(", float32")[0] for name, case in rows if name == "steps a second"}
    assert rates == {"dann", "fast", gpu.PHOTOS}
    assert {name for name, _ in rows} >= {"matmul rate", "rate / matmul rate", "target accuracy, fast"}
    assert "9:" in progress
    assert "left   published systems" in progress
    published = json.loads((tmp_path / "new" / "results-published.json").read_text())["rows"]
    assert {row["recipe"].partition("-")[0] for row in published} == {"source_only", "dann"}


def test_a_case_that_fails_is_listed_and_those_without_time_are_left_out(run_benchmark, monkeypatch, tmp_path):
    def fails(self):
        raise RuntimeError("no such device")

    monkeypatch.setattr(gpu.Gpu, "cases", lambda self: iter([("broken", lambda: fails(self)), ("matmul", self.matmul)]))
    monkeypatch.setattr(gpu, "train_published", lambda settings, seconds: None)
    with pytest.raises(SystemExit, match="failed: broken"):
        run_benchmark("gpu.py", "--dry-run")
    written = json.loads((tmp_path / "new" / "results.json").read_text())
    assert written["failed"] == {"broken": "RuntimeError: no such device"}
    assert [row["name"] for row in written["rows"]] == ["matmul rate"]
    results, _ = run_benchmark("gpu.py", "--dry-run", "--minutes", "0")
    assert results["left_out"] == ["broken", "matmul", "published systems"]
    assert results["rows"] == []


@pytest.mark.parametrize(
    ("script", "error"), [("trap 'touch saved; exit 143' TERM; sleep 5 & wait", ""), ("exit 3", "3")]
)
def test_the_published_systems_save_their_state_when_the_time_is_up(tmp_path, monkeypatch, script, error):
    command = tmp_path / "python"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setattr(gpu.sys, "executable", str(command))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MutualignError, match="exit status 3") if error else nullcontext():
        gpu.train_published(gpu.Settings(), seconds=0.0)
    assert (tmp_path / "saved").exists() == (not error)
