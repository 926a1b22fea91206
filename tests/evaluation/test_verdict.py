"""Verdicts: what ranges of gains say, and the range itself by simulation."""

from __future__ import annotations

import pytest
import torch

from mutualign.evaluation.estimators import RunOutputs
from mutualign.evaluation.verdict import Evidence, Range, judge, kind_of_gain, kind_without_labels, paired_gain


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


def run(predicted, consistency=0.9, sure=4.0, classes=3, learnt=True):
    return RunOutputs(
        4 * (torch.eye(classes) if learnt else torch.eye(classes)[[0] * classes]).repeat(40, 1),
        torch.arange(classes).repeat(40),
        sure * torch.eye(classes)[torch.tensor(predicted)],
        *("r", 0, 0.0, consistency),
    )


def test_equal_predictions_are_no_difference_without_a_label():
    ours = run([0, 1, 2] * 20)
    verdict = judge(Evidence(ours, ours, compared_with="source_only"))
    assert (verdict.kind, verdict.basis, verdict.gain) == ("no difference", "no target labels", Range(0.0, 0.0, 0.0))


def test_target_labels_decide_where_there_are_any():
    ours = run([0, 1, 2] * 20)
    verdict = judge(Evidence(ours, ours, "source_only", true_accuracy=0.2, true_gain=Range(-0.1, -0.15, -0.05)))
    assert (verdict.kind, verdict.basis, verdict.true_accuracy) == ("made it worse", "target labels", 0.2)
    assert "-10.0 points" in verdict.sentence


def test_without_a_baseline_nothing_is_claimed():
    verdict = judge(Evidence(run([0, 1, 2]), None))
    assert (verdict.kind, verdict.headline) == ("cannot tell", "not compared")  # and not: it was looked at in vain
    assert verdict.sentence.startswith("There is no source-only run of the same network and epochs to compare with")
    assert judge(Evidence(run([0, 1, 2]), None, is_baseline=True)).kind == "baseline"


GAIN = {kind: Range(low + 0.05, low, low + 0.1) for kind, low in {"helped": 0.1, "made it worse": -0.2}.items()}
COMPARED = {"baseline": run([0, 1, 2]), "compared_with": "source_only"}


@pytest.mark.parametrize(
    ("evidence", "headline", "decided"),
    [
        ({"baseline": None}, "not compared", False),
        (COMPARED, "no difference", False),
        ({"baseline": None, "is_baseline": True}, "baseline", False),
        (COMPARED | {"true_gain": Range(0.0, -0.1, 0.1)}, "cannot tell", False),
        (COMPARED | {"true_gain": GAIN["helped"]}, "helped", True),
        (COMPARED | {"true_gain": GAIN["made it worse"]}, "made it worse", True),
        ({"baseline": None, "trains_on_source": False}, "not compared", True),
    ],
)
def test_a_source_that_is_not_learnt_is_the_headline_where_no_sign_is_known(evidence, headline, decided):
    verdict = judge(Evidence(run([0, 1, 2], learnt=False), **evidence))
    assert verdict.kind == ("cannot tell" if headline == "not compared" else headline)
    assert verdict.headline == (headline if decided else "source not learnt")
    words = "The source is not learnt, so nothing else can be read: 33.3 % of held-out source images are right."
    assert (verdict.sentence == words) != decided
    assert judge(Evidence(run([0, 1, 2]), **evidence)).headline == headline


@pytest.mark.parametrize(
    ("apart", "bound", "consistency", "kind"),
    [
        (0.3, 0.2, 0.1, "helped"),
        (0.3, -0.2, -0.1, "made it worse"),
        (0.3, 0.2, -0.1, "cannot tell"),
        (0.3, -0.2, 0.1, "cannot tell"),
        (0.3, 0.2, 0.01, "cannot tell"),
        (0.3, 0.04, 0.1, "cannot tell"),
        (0.3, 0.06, 0.03, "helped"),
        (0.3, 0.2, None, "cannot tell"),
        (0.005, 0.2, 0.1, "no difference"),
    ],
)
def test_without_labels_two_signs_must_agree(apart, bound, consistency, kind):
    assert kind_without_labels(apart, bound, consistency) == kind


def test_the_gain_without_labels_is_never_beyond_the_share_of_images_that_differ():
    ours, theirs = run([0, 1, 2] * 100), run([0, 1, 1] * 100, consistency=0.5, sure=0.5)
    verdict = judge(Evidence(ours, theirs, "source_only"))
    assert verdict.kind == "helped"
    assert verdict.gain.low == -verdict.gain.high == pytest.approx(-1 / 3)
    assert 0 < verdict.gain.value <= verdict.gain.high
    about = f"about {100 * verdict.gain.value:+.0f} points over source only"
    assert verdict.sentence == f"Adaptation probably helped: {about}, estimated without target labels."


def test_no_difference_names_the_share_of_images_whose_class_changes():
    ours, theirs = run([0, 1, 2] * 100), run([0, 1, 2] * 99 + [0, 1, 1])
    verdict = judge(Evidence(ours, theirs, "source_only"))
    assert verdict.sentence == "Adaptation made no difference: it changes the class of 0.3 % of the target images."
