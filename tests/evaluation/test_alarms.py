"""Each alarm at its threshold, and no alarm for epochs that are fine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutualign.evaluation.alarms import SourceClasses, stage_alarms, verdict_alarms
from mutualign.evaluation.audit import class_shares
from mutualign.evaluation.records import EpochAudit, EpochRecord
from mutualign.evaluation.verdict import Verdict

NAMES = [f"kind {letter}" for letter in "abcdefghij"]
PRIOR = [0.1] * 10


def healthy(*, scores=None, means=None, **audit):
    """The record of an epoch that nothing is wrong with, with some values changed."""
    facts = {
        "predicted_shares": list(PRIOR),
        "confidence_histogram": [0.0] * 9 + [1.0],
        "gradients": {"class": 0.02, "domain": 0.01, "mi": 0.05},
        "reversal": -1.0,
        "coverage": 0.8,
        "teacher_agreement": 0.95,
        "teacher_fingerprint": 1.5,
    }
    return EpochRecord(
        stage=0,
        epoch=1,
        method="mani",
        train_seconds=1.0,
        means={"domain_accuracy": 0.7} | (means or {}),
        scores={"source_accuracy": 0.95, "augmentation_consistency": 0.9} | (scores or {}),
        source_accuracy=0.95,
        target_accuracy=None,
        audit=EpochAudit(**facts | audit),
    )


def names(epochs, prior=PRIOR, **settings):
    return [alarm.name for alarm in stage_alarms(epochs, SourceClasses(NAMES, prior), **settings)]


def test_healthy_epochs_of_every_kind_of_method_raise_no_alarm():
    assert names([]) == []
    assert names([healthy(teacher_fingerprint=1.0), healthy()]) == []
    bare = {"coverage": None, "teacher_agreement": None, "teacher_fingerprint": None, "reversal": None}
    source_only = healthy(gradients={"class": 0.1}, **bare)
    assert names([source_only, source_only]) == []
    no_gradients = replace(healthy(gradients={}, **bare), means={})  # a method without an optimiser
    assert names([no_gradients, no_gradients]) == []
    forgets = healthy(scores={"source_accuracy": 0.1}, gradients={"information": 0.1}, **bare)
    assert names([forgets], learns_source=False) == []  # a stage without source images


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"gradients": {"class": 0.1, "domain": 0.0}}, "no adaptation gradient"),
        ({"gradients": {"class": 0.1, "domain": 1e-9, "mi": 1.0}}, "no adaptation gradient"),
        ({"reversal": 1.0}, "reversal with the wrong sign"),
        ({"scores": {"source_accuracy": 0.18}}, "source is not learnt"),
        ({"means": {"domain_accuracy": 0.999}}, "discriminator saturated"),
        ({"predicted_shares": [0.91] + [0.01] * 9}, "predicted classes collapsed"),
        ({"predicted_shares": [0.0, 0.0, 0.0] + [1 / 7] * 7}, "classes missing among the predictions"),
    ],
)
def test_each_defect_raises_its_alarm_and_no_other(change, expected):
    assert names([healthy(**change)]) == [expected]


SHIFTED = {"same_within_classes": 0.5, "estimated_shares": [0.36] + [0.64 / 9] * 9}


@pytest.mark.parametrize(
    ("fine", "alarming", "expected"),
    [
        ({"means": {"domain_accuracy": 0.994}}, {"means": {"domain_accuracy": 0.996}}, "discriminator saturated"),
        (
            {"predicted_shares": [0.011, 0.009] + [0.98 / 8] * 8},
            {"predicted_shares": [0.009, 0.009] + [0.982 / 8] * 8},
            "classes missing among the predictions",
        ),
        (SHIFTED | {"same_within_classes": 0.09}, SHIFTED | {"same_within_classes": 0.11}, "class frequencies differ"),
        (SHIFTED | {"estimated_shares": [0.34] + [0.66 / 9] * 9}, SHIFTED, "class frequencies differ"),
    ],
)
def test_an_alarm_is_raised_from_its_threshold_on(fine, alarming, expected):
    assert names([healthy(**fine)]) == []
    assert names([healthy(**alarming)]) == [expected]


def test_predictions_collapse_from_half_of_the_sources_classes_down():
    assert names([healthy(predicted_shares=[0.25] * 4 + [0.0] * 6)]) == ["predicted classes collapsed"]
    assert names([healthy(predicted_shares=[1 / 6] * 6 + [0.0] * 4)]) == ["classes missing among the predictions"]


def test_alarms_name_classes_and_never_their_numbers():
    source = SourceClasses(["10", "2", "9"], [1 / 3] * 3)
    (collapsed,) = stage_alarms([healthy(predicted_shares=[1.0, 0.0, 0.0])], source)
    assert 'class "10"' in collapsed.seen
    (missing,) = stage_alarms([healthy(predicted_shares=[0.0, 0.4, 0.6])], source)
    assert 'class "10", 33 % of the source' in missing.seen
    many = healthy(predicted_shares=[0.0] * 6 + [1 / 4] * 4)
    (missing,) = stage_alarms([many], SourceClasses(NAMES, [0.035] * 6 + [0.79 / 4] * 4))
    assert 'classes "kind a", "kind b", "kind c", "kind d", "kind e" and 1 more' in missing.seen


def test_a_class_gradient_of_zero_is_no_alarm_as_the_source_may_be_learnt_perfectly():
    assert names([healthy(gradients={"class": 0.0, "domain": 0.1})]) == []


def test_a_dead_gradient_without_pseudo_labels_names_the_threshold_as_the_cause():
    epoch = healthy(gradients={"class": 0.1, "mi": 0.0}, coverage=0.0)
    (alarm,) = stage_alarms([epoch], SourceClasses(NAMES, PRIOR))
    assert "mi" in alarm.seen
    assert "threshold" in alarm.cause


def test_a_teacher_with_the_weights_of_an_epoch_ago_is_frozen():
    assert names([healthy(), healthy()]) == ["teacher does not move"]
    assert names([healthy()]) == []


def test_pseudo_labels_confirm_themselves_if_coverage_rises_while_consistency_falls():
    def epochs(*pairs):
        return [
            healthy(scores={"augmentation_consistency": c}, coverage=v, teacher_fingerprint=float(i))
            for i, (c, v) in enumerate(pairs)
        ]

    assert names(epochs((0.9, 0.3), (0.8, 0.6), (0.6, 0.9))) == ["pseudo-labels confirm themselves"]
    assert names(epochs((0.9, 0.3), (0.79, 0.41))) == ["pseudo-labels confirm themselves"]
    assert names(epochs((0.9, 0.3), (0.81, 0.41))) == names(epochs((0.9, 0.3), (0.79, 0.39))) == []
    assert names(epochs((0.9, 0.3), (0.95, 0.6), (0.97, 0.9))) == []  # surer and better
    assert names(epochs((0.9, 0.9), (0.8, 0.6), (0.6, 0.3))) == []  # worse and less sure


def test_before_the_end_of_a_stage_only_what_training_cannot_fix_is_reported():
    assert names([healthy(predicted_shares=[1.0] + [0.0] * 9)], complete=False) == []
    assert names([healthy(reversal=0.5)], complete=False) == ["reversal with the wrong sign"]
    unsure = healthy(gradients={"class": 0.1, "mi": 0.0}, coverage=0.0)
    assert names([unsure], complete=False) == []  # the teacher may become sure
    assert names([unsure]) == ["no adaptation gradient"]


def test_predictions_as_frequent_as_a_skewed_source_are_no_alarm():
    prior = [0.82] + [0.02] * 9
    assert names([healthy(predicted_shares=list(prior))], prior) == []
    assert names([healthy(scores={"source_accuracy": 0.83})], prior) == ["source is not learnt"]


@given(st.permutations(range(10)))
def test_the_order_of_the_classes_changes_no_alarm(order):
    prior = class_shares(torch.tensor([0] * 4 + list(range(10))), 10)
    shares = [0.3, 0.3, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.0]
    renamed = names([healthy(predicted_shares=[shares[i] for i in order])], [prior[i] for i in order])
    assert renamed == names([healthy(predicted_shares=shares)], prior)


def test_class_frequencies_that_explain_the_predictions_are_no_collapse():
    most = [0.91] + [0.01] * 9
    assert names([healthy(predicted_shares=most, same_within_classes=0.001, estimated_shares=most)]) == [
        "predicted classes collapsed"
    ]
    (alarm,) = stage_alarms(
        [healthy(predicted_shares=most, same_within_classes=0.6, estimated_shares=most)], SourceClasses(NAMES, PRIOR)
    )
    assert alarm.name == "classes missing among the predictions"
    some = [0.55] + [0.05] * 9
    (alarm,) = stage_alarms(
        [healthy(predicted_shares=some, same_within_classes=0.6, estimated_shares=some)], SourceClasses(NAMES, PRIOR)
    )
    assert alarm.name == "class frequencies differ"
    assert '"kind a" has 55 % of the target images' in alarm.seen
    assert names([healthy(same_within_classes=1.0, estimated_shares=list(PRIOR))]) == []


def verdict(kind="helped", **numbers):
    return Verdict(kind, "A sentence.", "no target labels", compared_with="source_only-1", **numbers)


def test_harm_and_low_accuracy_raise_alarms_by_labels_where_there_are_any():
    def raised(**facts):
        return [alarm.name for alarm in verdict_alarms(verdict(**facts), 0.9)]

    assert raised(accuracy=0.9) == []
    assert raised(kind="made it worse", accuracy=0.9) == ["negative transfer"]
    assert raised(accuracy=0.3) == ["low target accuracy"]
    assert raised(accuracy=0.3, true_accuracy=0.9) == []
    assert raised(accuracy=0.9, true_accuracy=0.19) == ["low target accuracy"]
    assert (raised(accuracy=0.77), raised(accuracy=0.76)) == ([], ["low target accuracy"])  # 0.85 of the source's 0.9
    assert (raised(true_accuracy=0.73), raised(true_accuracy=0.71)) == ([], ["low target accuracy"])  # 0.8 of it
