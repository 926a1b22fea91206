"""The benchmark of cost by size: what it copies, and what it calls linear. No test here measures a time."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import scaling
import torch

from mutualign.data.datasets import find_task


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


def test_a_grown_task_holds_copies_of_images_and_labels_that_share_no_memory_with_the_originals(tmp_path):
    task = find_task("digits").load(tmp_path)
    for factor in (1, 3):
        grown = scaling.grown(task, factor)
        for name, times in (("source_train", factor), ("target_train", factor), ("source_test", 1), ("target_test", 1)):
            old, new = getattr(task, name), getattr(grown, name)
            assert len(new) == times * len(old)
            for row in range(0, len(new), 100):
                assert torch.equal(new.images.pixels[row], old.images.pixels[row % len(old)])
            labels = "labels" if name.startswith("source") else "hidden_labels"
            assert torch.equal(getattr(new, labels), getattr(old, labels).repeat(times))
            assert new.images.pixels.data_ptr() != old.images.pixels.data_ptr()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_peak_excludes_memory_freed_before_the_reset_and_includes_later_memory():
    # Pages from the system itself, because malloc may keep what is freed.
    with mmap.mmap(-1, 64 * 2**20) as block:
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1
        held = scaling.peak_mib()
    scaling.reset_peak()
    before = scaling.peak_mib()
    assert before < held - 50
    with mmap.mmap(-1, 32 * 2**20) as block:
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1
        assert scaling.peak_mib() - before == pytest.approx(32, abs=4)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_results_have_a_row_per_size_with_its_memory(run_benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "ProcessPoolExecutor", lambda n, context: ThreadPoolExecutor(n))
    recipe = tmp_path / "short.toml"
    recipe.write_text('backbone = "mlp"\n[[stages]]\nmethod = "source_only"\nepochs = 1\nbatch_size = 512\n')
    results, _ = run_benchmark("scaling.py", "--task", "digits", "--recipe", recipe, "--factors", "1", "2")
    rows = results["rows"]
    assert [entry["images"] for entry in rows] == [2 * 1437, 4 * 1437]
    assert rows[1]["data_mib"] == 2 * rows[0]["data_mib"]
    assert rows[0]["data_mib"] == 1437 * (28 * 28 * (1 + 3) + 2 * 8) / 2**20
    assert all(entry["epoch_seconds"] > 0 for entry in rows)
    assert all(entry["peak_mib"] >= entry["before_mib"] > 100 for entry in rows)
