"""Verdicts: what ranges of gains say, and the range itself by simulation."""

from __future__ import annotations

import pytest
import torch

from mutualign.evaluation.estimators import EstimatorInputs
from mutualign.evaluation.verdict import Evidence, Range, judge, kind_of_gain, paired_gain


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (0.02, 0.1, "helped"),
        (-0.1, -0.02, "made it worse"),
        (-0.1, 0.1, "cannot tell"),
        (0.0, 0.1, "cannot tell"),
        (-0.005, 0.005, "no difference"),
        (0.002, 0.008, "no difference"),
    ],
)
def test_a_range_of_gains_decides_the_kind(low, high, kind):
    assert kind_of_gain(Range((low + high) / 2, low, high)) == kind


def test_the_range_of_a_paired_gain_holds_the_true_one_at_its_rate():
    rng = torch.Generator().manual_seed(0)
    n, trials, held = 200, 2000, 0
    for _ in range(trials):
        kind = torch.rand(n, generator=rng)  # both right 70 %, only ours 15 %, only theirs 5 %, none 10 %
        ours, theirs = kind < 0.85, (kind < 0.7) | ((kind >= 0.85) & (kind < 0.9))
        found = paired_gain(ours, theirs)
        held += found.low <= 0.10 <= found.high
    assert 0.935 <= held / trials <= 0.97


def outputs(predicted, classes=3):
    logits = 4 * torch.eye(classes)[torch.tensor(predicted)]
    return EstimatorInputs(4 * torch.eye(classes).repeat(4, 1), torch.arange(classes).repeat(4), logits)


def test_equal_predictions_are_no_difference_without_a_label():
    ours = outputs([0, 1, 2] * 20)
    verdict = judge(Evidence(ours, ours, compared_with="source_only"))
    assert (verdict.kind, verdict.basis, verdict.gain) == ("no difference", "no target labels", Range(0.0, 0.0, 0.0))


def test_target_labels_decide_where_there_are_any():
    ours = outputs([0, 1, 2] * 20)
    verdict = judge(Evidence(ours, ours, "source_only", true_accuracy=0.2, true_gain=Range(-0.1, -0.15, -0.05)))
    assert (verdict.kind, verdict.basis, verdict.true_accuracy) == ("made it worse", "target labels", 0.2)


def test_without_a_baseline_nothing_is_claimed():
    assert judge(Evidence(outputs([0, 1, 2]), None)).kind == "cannot tell"
    assert judge(Evidence(outputs([0, 1, 2]), None, is_baseline=True)).kind == "baseline"
