"""Choosing epochs and runs by scores."""

from __future__ import annotations

import pytest

from mutualign.errors import MutualignError
from mutualign.evaluation.records import EpochAudit, EpochRecord
from mutualign.evaluation.selection import Choice, best_epoch, rank


def epochs(*scores, stage=0, validator="mano"):
    return [
        EpochRecord(stage, number, "dann", 1.0, {}, {validator: score}, 0.9, None, EpochAudit([], []))
        for number, score in enumerate(scores, start=1)
    ]


def test_the_best_epoch_has_the_highest_score_and_is_the_first_of_equals():
    assert best_epoch(epochs(0.1, 0.7, 0.3, 0.7), "mano").epoch == 2
    assert best_epoch(epochs(-3.0), "mano").epoch == 1


def test_runs_are_ranked_by_the_best_epoch_of_their_last_stage():
    runs = {
        "falling": epochs(0.9, 0.2),
        "rising": epochs(0.1, 0.95),
        "two stages": epochs(0.99, 0.99) + epochs(0.3, 0.5, 0.4, stage=1),
    }
    assert rank(runs, "mano") == [
        Choice("rising", 2, 0.95, 2, 0.95),
        Choice("falling", 1, 0.9, 2, 0.2),
        Choice("two stages", 2, 0.5, 3, 0.4),
    ]


@pytest.mark.parametrize(
    ("runs", "validator", "message"),
    [
        ({"a": epochs(0.5)}, "manno", 'unknown validator "manno"; did you mean "mano"?'),
        ({"a": epochs(0.5), "b": []}, "mano", "b: no epoch is complete yet"),
        ({"a": epochs(0.5)}, "class_ami", "a: epoch 1 of stage 0 was not scored by class_ami, but by: mano"),
    ],
)
def test_runs_that_cannot_be_ranked_are_named(runs, validator, message):
    with pytest.raises(MutualignError) as caught:
        rank(runs, validator)
    assert message in str(caught.value)
