"""Losses on predictions, against sums over images and classes."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.nn.losses import (
    batch_nuclear_norm,
    class_confusion,
    entropy,
    entropy_minimisation,
    information_maximisation,
)


@pytest.fixture
def logits():
    return 2 * torch.randn(7, 4, generator=torch.Generator().manual_seed(0))


def naive_entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def test_entropy_is_the_sum_over_classes(logits):
    expected = [naive_entropy(row) for row in logits.softmax(1).tolist()]
    assert entropy(logits).tolist() == pytest.approx(expected, rel=1e-5)
    assert float(entropy_minimisation(logits)) == pytest.approx(sum(expected) / 7, rel=1e-5)


def test_entropy_is_finite_with_its_gradient_for_certain_predictions():
    logits = torch.tensor([[1e4, 0.0], [0.0, -1e4]], requires_grad=True)
    entropy_minimisation(logits).backward()
    assert entropy(logits).tolist() == [0.0, 0.0]
    assert logits.grad.isfinite().all()


def test_information_is_the_entropy_of_the_mean_less_the_mean_entropy(logits):
    rows = logits.softmax(1)
    expected = naive_entropy(rows.mean(0).tolist()) - sum(naive_entropy(row) for row in rows.tolist()) / 7
    assert float(information_maximisation(logits)) == pytest.approx(-expected, rel=1e-4)


def test_information_with_a_prior_has_the_divergence_of_the_mean_from_it(logits):
    rows, prior = logits.softmax(1), torch.tensor([0.4, 0.3, 0.2, 0.1])
    divergence = sum(m * math.log(m / q) for m, q in zip(rows.mean(0).tolist(), prior.tolist(), strict=True))
    expected = sum(naive_entropy(row) for row in rows.tolist()) / 7 + divergence - math.log(4)
    assert float(information_maximisation(logits, prior)) == pytest.approx(expected, rel=1e-4)
    uniform = information_maximisation(logits, torch.full((4,), 0.25))
    assert float(uniform) == pytest.approx(float(information_maximisation(logits)), rel=1e-5)


@pytest.mark.parametrize("classes", [2, 5])
def test_information_is_ln_classes_for_certain_even_predictions_and_0_for_equal_ones(classes):
    certain = 100 * torch.eye(classes).repeat(3, 1)
    assert float(information_maximisation(certain)) == pytest.approx(-math.log(classes), rel=1e-5)
    collapsed = 100 * torch.eye(classes)[:1].repeat(6, 1)
    assert float(information_maximisation(collapsed)) == pytest.approx(0, abs=1e-6)


def test_nuclear_norm_is_the_sum_of_singular_values_and_largest_for_certain_even_predictions(logits):
    singular = torch.linalg.eigvalsh(logits.softmax(1).T @ logits.softmax(1)).clamp_min(0).sqrt()
    assert float(batch_nuclear_norm(logits)) == pytest.approx(-float(singular.sum()) / 7, rel=1e-4)
    even = 100 * torch.eye(3).repeat(2, 1)
    assert float(batch_nuclear_norm(even)) == pytest.approx(-math.sqrt(3 / 6), rel=1e-5)


def test_class_confusion_is_that_of_a_double_loop(logits):
    rows = (logits / 2.5).softmax(1).tolist()
    weights = [1 + math.exp(-naive_entropy(row)) for row in rows]
    weights = [7 * weight / sum(weights) for weight in weights]
    matrix = [
        [sum(w * row[a] * row[b] for w, row in zip(weights, rows, strict=True)) for b in range(4)] for a in range(4)
    ]
    expected = sum(matrix[a][b] / sum(matrix[a]) for a in range(4) for b in range(4) if a != b) / 4
    assert float(class_confusion(logits)) == pytest.approx(expected, rel=1e-5)


def test_class_confusion_is_0_for_certain_predictions_even_where_a_class_is_never_predicted():
    certain = 1000 * torch.eye(3)[[0, 1, 1, 0]]
    certain.requires_grad_()
    loss = class_confusion(certain)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert certain.grad.isfinite().all()
