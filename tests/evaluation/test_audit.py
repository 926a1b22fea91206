"""Facts of an epoch by hand, and each alarm at its threshold."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutualign.evaluation.audit import (
    Teacher,
    alarms,
    class_shares,
    domain_accuracy,
    facts,
    identical_domains,
    negative_transfer,
)

PRIOR = [0.1] * 10


def of_two_classes(*chances):
    """Logits of two classes with these probabilities of class 1."""
    return torch.tensor([[0.0, math.log(p / (1 - p))] for p in chances])


def healthy(**changes):
    """The record of an epoch that nothing is wrong with; `audit__coverage=0` changes one of its facts."""
    record = {
        "scores": {"source_accuracy": 0.95, "augmentation_consistency": 0.9},
        "means": {"domain_accuracy": 0.7},
        "audit": {
            "predicted_shares": list(PRIOR),
            "gradients": {"class": 0.02, "domain": 0.01, "mi": 0.05},
            "reversal": -1.0,
            "coverage": 0.8,
            "teacher_agreement": 0.95,
            "teacher_fingerprint": 1.5,
        },
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        record[part][name] = value
    return copy.deepcopy(record)


def names(epochs, prior=PRIOR, **settings):
    return [alarm.name for alarm in alarms(epochs, prior, **settings)]


def test_facts_are_counted_by_hand():
    logits = of_two_classes(0.05, 0.45, 0.62, 0.99)  # tops 0.95, 0.55, 0.62, 0.99
    teacher = Teacher(of_two_classes(0.05, 0.55, 0.19, 0.9), logits, threshold=0.8)
    found = facts(logits, torch.tensor([0, 1, 1, 1]), teacher)
    assert found["predicted_shares"] == [0.5, 0.5]
    assert found["confidence_histogram"] == [0, 0, 0, 0, 0, 0.25, 0.25, 0, 0, 0.5]
    assert found["drift"] == 0.25
    assert found["coverage"] == 0.75  # 0.95, 0.81 and 0.9
    assert found["pseudo_label_shares"] == pytest.approx([2 / 3, 1 / 3])
    assert found["teacher_agreement"] == 0.5


def test_without_teacher_and_earlier_epoch_only_that_is_told_which_is_known():
    assert facts(of_two_classes(0.5)).keys() == {"predicted_shares", "confidence_histogram"}


def test_no_confident_image_gives_no_shares_and_not_a_nan():
    logits = of_two_classes(0.5, 0.6)
    assert facts(logits, None, Teacher(logits, logits, 0.9))["pseudo_label_shares"] == [0, 0]


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), st.integers(1, 5))
def test_facts_are_finite_and_shares_sum_to_one_on_extreme_logits(row, n):
    logits = torch.tensor([row] * n)
    found = facts(logits, torch.zeros(n, dtype=torch.int64), Teacher(logits, -logits, 0.9))
    assert sum(found["predicted_shares"]) == pytest.approx(1)
    assert sum(found["confidence_histogram"]) == pytest.approx(1)
    assert all(0 <= found[key] <= 1 for key in ("drift", "coverage", "teacher_agreement"))


def test_class_shares_count_classes_that_do_not_occur():
    assert class_shares(torch.tensor([0, 0, 3]), 4) == pytest.approx([2 / 3, 0, 0, 1 / 3])


def test_no_epoch_and_healthy_epochs_raise_no_alarm():
    assert names([]) == []
    assert names([healthy(audit__teacher_fingerprint=1.0), healthy()]) == []
    plain = healthy()
    for key in ("coverage", "teacher_agreement", "teacher_fingerprint"):
        del plain["audit"][key]
    plain["audit"] |= {"gradients": {"class": 0.1}, "reversal": None}
    plain["means"] = {}
    assert names([plain, plain]) == []  # source only has no teacher, no discriminator, and one loss


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"audit__gradients": {"class": 0.1, "domain": 0.0}}, "no adaptation gradient"),
        ({"audit__gradients": {"class": 0.1, "domain": 1e-9, "mi": 1.0}}, "no adaptation gradient"),
        ({"audit__reversal": 1.0}, "reversal with the wrong sign"),
        ({"scores__source_accuracy": 0.18}, "source is not learnt"),
        ({"means__domain_accuracy": 0.999}, "discriminator saturated"),
        ({"audit__predicted_shares": [0.91] + [0.01] * 9}, "predicted classes collapsed"),
        ({"audit__predicted_shares": [0.0, 0.0, 0.0] + [1 / 7] * 7}, "classes missing among the predictions"),
    ],
)
def test_each_defect_raises_its_alarm_and_no_other(change, expected):
    assert names([healthy(**change)]) == [expected]


def test_a_class_gradient_of_zero_is_no_alarm_as_the_source_may_be_learnt_perfectly():
    assert names([healthy(audit__gradients={"class": 0.0, "domain": 0.1})]) == []


def test_a_dead_gradient_where_nothing_is_labelled_names_the_threshold_as_the_cause():
    gradients = {"class": 0.1, "mi": 0.0}
    (alarm,) = alarms([healthy(audit__gradients=gradients, audit__coverage=0.0)], PRIOR)
    assert "mi" in alarm.seen
    assert "threshold" in alarm.cause


def test_a_teacher_with_the_weights_of_an_epoch_ago_is_frozen():
    assert names([healthy(), healthy()]) == ["teacher does not move"]
    assert names([healthy()]) == []


def test_pseudo_labels_confirm_themselves_where_coverage_rises_while_consistency_falls():
    def epochs(*pairs):
        return [
            healthy(scores__augmentation_consistency=c, audit__coverage=v, audit__teacher_fingerprint=float(i))
            for i, (c, v) in enumerate(pairs)
        ]

    confirming = "pseudo-labels confirm themselves"
    assert names(epochs((0.9, 0.3), (0.8, 0.6), (0.6, 0.9))) == [confirming]
    assert names(epochs((0.9, 0.3), (0.95, 0.6), (0.97, 0.9))) == []  # surer and better
    assert names(epochs((0.9, 0.9), (0.8, 0.6), (0.6, 0.3))) == []  # worse and less sure: it knows


def test_what_a_later_epoch_may_mend_is_told_at_the_end_of_the_stage():
    collapsed = healthy(audit__predicted_shares=[1.0] + [0.0] * 9)
    assert names([collapsed], complete=False) == []
    assert names([healthy(audit__reversal=0.5)], complete=False) == ["reversal with the wrong sign"]


def test_predictions_as_frequent_as_a_skewed_source_are_no_alarm():
    prior = [0.82] + [0.02] * 9
    assert names([healthy(audit__predicted_shares=list(prior))], prior) == []
    assert names([healthy(scores__source_accuracy=0.83)], prior) == ["source is not learnt"]


@given(st.permutations(range(10)))
def test_renaming_classes_changes_no_alarm(order):
    prior = class_shares(torch.tensor([0] * 4 + list(range(10))), 10)
    shares = [0.3, 0.3, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.0]
    renamed = names(
        [healthy(audit__predicted_shares=[shares[i] for i in order])], [prior[i] for i in order], complete=True
    )
    assert renamed == names([healthy(audit__predicted_shares=shares)], prior)


def test_images_of_two_kinds_are_told_apart_and_of_one_kind_not():
    rng = torch.Generator().manual_seed(0)
    dark, more, bright = (
        torch.randint(low, low + 100, (300, 9, 9, 1), generator=rng).to(torch.uint8) for low in (0, 0, 60)
    )
    assert domain_accuracy(dark, bright) > 0.95
    assert identical_domains(domain_accuracy(dark, bright), 600) is None
    for same in (more, dark):  # other images of the same kind, and the very same images
        accuracy = domain_accuracy(dark, same)
        assert accuracy < 0.56
        assert identical_domains(accuracy, 600).name == "identical domains"


def test_images_that_differ_in_texture_only_are_told_apart():
    rng = torch.Generator().manual_seed(0)
    flat = torch.full((100, 8, 8, 1), 100, dtype=torch.uint8)
    noisy = torch.randint(60, 141, (100, 8, 8, 1), generator=rng).to(torch.uint8)
    assert domain_accuracy(flat, noisy) > 0.95


def test_one_image_a_domain_is_not_enough_to_tell():
    image = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    assert identical_domains(domain_accuracy(image, image), 2) is not None


def test_negative_transfer_needs_both_measures_to_be_no_better():
    def epoch(information, consistency, shares=PRIOR):
        return healthy(
            scores__information_maximisation=information,
            scores__augmentation_consistency=consistency,
            audit__predicted_shares=shares,
        )

    source_only = epoch(1.0, 0.8)
    assert negative_transfer(epoch(0.9, 0.7), source_only).name == "negative transfer"
    assert negative_transfer(source_only, source_only) is not None
    assert negative_transfer(epoch(1.1, 0.7), source_only) is None
    assert negative_transfer(epoch(0.9, 0.9), source_only) is None
    collapsed = epoch(0.0, 1.0, [1.0] + [0.0] * 9)  # as consistent as can be, and worth nothing
    assert negative_transfer(collapsed, source_only) is not None
