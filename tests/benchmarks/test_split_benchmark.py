"""The benchmark of tests that share digits: its halves, and the difference by hand."""

from __future__ import annotations

import pytest
import split
import torch

from mutualign.evaluation.records import EpochAudit, EpochRecord
from mutualign.evaluation.validators import VALIDATORS
from tests.tiny_task import make_tiny_task


def half(scores, accuracies, n=20, right=20):
    """A half whose validators all have these scores; `right` of n source images are classified correctly."""
    records = [
        EpochRecord(0, number, "dann", 1.0, {}, dict.fromkeys(VALIDATORS, score), 1.0, accuracy, EpochAudit([], []))
        for number, (score, accuracy) in enumerate(zip(scores, accuracies, strict=True), start=1)
    ]
    logits = 3 * torch.eye(2)[torch.arange(n) % 2]
    labels = torch.where(torch.arange(n) < right, torch.arange(n) % 2, 1 - torch.arange(n) % 2)
    return split.Half(records, {"source_logits": logits, "source_labels": labels, "target_logits": logits})


def test_sharing_digits_is_worth_what_a_half_gains_by_its_own_choice():
    first, second = (
        half([0.0, 1.0], [0.5, 0.7]),
        half([1.0, 0.0], [0.9, 0.6]),
    )  # each chooses the epoch that is good for itself
    found = split.compare([first, second])
    assert found["epoch: source_accuracy"] == pytest.approx({"same": (0.7 + 0.9) / 2, "other": (0.6 + 0.5) / 2})
    assert found["error: difference_of_confidences"] == pytest.approx({"same": 1 - 0.65, "other": 1 - 0.65})
    alike = split.compare([half([0.0, 1.0], [0.5, 0.7]), half([0.0, 1.0], [0.9, 0.6])])
    assert alike["epoch: combined"]["same"] == alike["epoch: combined"]["other"]  # however easy a half is
    (line,) = (line for line in split.summarise([{"found": found}] * 3) if line["what"] == "epoch: combined")
    assert (line["difference"], line["half_width"]) == (pytest.approx(25), pytest.approx(0))


def test_the_halves_are_the_even_and_the_odd_rows_of_both_tests():
    task = make_tiny_task()
    even, odd = (split.half_of(task, number) for number in (0, 1))
    assert torch.equal(even.source_test.labels, task.source_test.labels[::2])
    assert torch.equal(odd.target_test.images.pixels, task.target_test.images.pixels[1::2])
    assert odd.source_train is task.source_train
    assert len(even.target_test) + len(odd.target_test) == len(task.target_test)


def test_a_run_of_the_benchmark_measures_every_epoch_on_both_halves(run_benchmark, monkeypatch):
    monkeypatch.setattr(split, "load_task", lambda *about: make_tiny_task())
    results, _ = run_benchmark("split.py", "--recipes", "dann", "--seeds", "2", "--epochs", "2", "--steps", "2")
    assert [(row["recipe"], row["seed"]) for row in results["rows"]] == [("dann", 0), ("dann", 1)]
    names = {line["what"] for line in results["summary"]}
    assert names >= {f"epoch: {name}" for name in VALIDATORS} | {"error: lower bound", "alarm: low target accuracy"}
