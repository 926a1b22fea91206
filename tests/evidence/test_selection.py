"""The label-free scores against closed forms and loops."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.evidence.selection import (
    DEFAULT_VALIDATOR,
    VALIDATORS,
    entropy,
    information_maximisation,
    scores,
    target_entropy,
)

SURE = 1e4  # a logit that makes a softmax one-hot in double precision


def one_hot(labels, classes):
    return SURE * torch.nn.functional.one_hot(torch.tensor(labels), classes).float()


def naive_probabilities(logits):
    rows = []
    for row in logits.double().tolist():
        exponentials = [math.exp(value - max(row)) for value in row]
        rows.append([e / sum(exponentials) for e in exponentials])
    return rows


def naive_entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


@pytest.mark.parametrize("classes", [2, 10])
def test_uniform_predictions_have_entropy_ln_classes_and_no_information(classes):
    logits = torch.full((20, classes), 3.7)
    assert target_entropy(logits) == pytest.approx(-math.log(classes))
    assert information_maximisation(logits) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 10])
def test_sure_predictions_spread_over_the_classes_have_ln_classes_of_information(classes):
    logits = one_hot(list(range(classes)) * 3, classes)
    assert target_entropy(logits) == pytest.approx(0, abs=1e-9)
    assert information_maximisation(logits) == pytest.approx(math.log(classes))


def test_a_collapse_to_one_class_has_the_highest_negative_entropy_and_no_information():
    collapsed, good = one_hot([4] * 30, 10), one_hot(list(range(10)) * 3, 10) / SURE * 3
    assert target_entropy(collapsed) == pytest.approx(0, abs=1e-9)
    assert target_entropy(collapsed) > target_entropy(good)
    assert information_maximisation(collapsed) == pytest.approx(0, abs=1e-9)
    assert information_maximisation(collapsed) < information_maximisation(good)


def test_sure_predictions_in_known_shares_have_the_entropy_of_the_shares():
    logits = one_hot([0] * 5 + [1] * 3 + [2] * 2, 4)
    assert information_maximisation(logits) == pytest.approx(naive_entropy([0.5, 0.3, 0.2]))


def test_the_scores_are_those_of_a_loop_over_the_images():
    torch.manual_seed(0)
    logits = 3 * torch.randn(40, 7)
    rows = naive_probabilities(logits)
    mean_of_entropies = sum(map(naive_entropy, rows)) / 40
    mean = [sum(row[c] for row in rows) / 40 for c in range(7)]
    assert target_entropy(logits) == pytest.approx(-mean_of_entropies)
    assert information_maximisation(logits) == pytest.approx(naive_entropy(mean) - mean_of_entropies)
    assert scores(logits) == pytest.approx(
        {"target_entropy": -mean_of_entropies, "information_maximisation": naive_entropy(mean) - mean_of_entropies}
    )


def test_entropy_is_taken_over_the_last_dimension():
    probabilities = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.9, 0.1]]], dtype=torch.float64)
    expected = [[naive_entropy(row) for row in rows] for rows in probabilities.tolist()]
    assert torch.allclose(entropy(probabilities), torch.tensor(expected, dtype=torch.float64))


def test_the_scores_are_finite_on_extreme_logits():
    logits = torch.tensor([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30], [1e30, 1e30, 1e30]])
    assert all(math.isfinite(score) for score in scores(logits).values())


def test_the_default_is_one_of_the_validators():
    assert DEFAULT_VALIDATOR in VALIDATORS
    assert set(scores(torch.zeros(2, 3))) == set(VALIDATORS)
