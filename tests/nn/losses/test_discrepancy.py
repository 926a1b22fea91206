"""Distances between domains, against double loops and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.nn.losses import (
    batch_spectral_penalty,
    classifier_discrepancy,
    coral,
    joint_mmd,
    margin_disparity,
    mmd,
    nuclear_wasserstein,
    stepwise_feature_norm,
    transport_cost,
)

BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)


@pytest.fixture
def rows():
    """Source rows, and target rows moved away from them."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, generator=generator), torch.randn(5, 3, generator=generator) + 0.7


def naive_mmd(kernel, n):
    """Unbiased, from a kernel matrix as lists."""
    size = len(kernel)
    source = sum(kernel[i][j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    m = size - n
    target = sum(kernel[i][j] for i in range(n, size) for j in range(n, size) if i != j) / (m * (m - 1))
    across = sum(kernel[i][j] for i in range(n) for j in range(n, size)) / (n * m)
    return source + target - 2 * across


def naive_kernels(rows, bandwidths=BANDWIDTHS):
    points = rows.tolist()
    squares = [[sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for q in points] for p in points]
    mean = sum(map(sum, squares)) / len(points) ** 2
    return [[sum(math.exp(-d / (2 * s * mean)) for s in bandwidths) for d in line] for line in squares]


def test_mmd_is_that_of_a_double_loop(rows):
    expected = naive_mmd(naive_kernels(torch.cat(rows)), 6)
    assert float(mmd(*rows)) == pytest.approx(expected, rel=1e-4)


def test_mmd_is_0_on_average_for_equal_distributions_and_grows_with_the_distance():
    generator = torch.Generator().manual_seed(1)
    values = [mmd(*torch.randn(2, 32, 4, generator=generator)) for _ in range(60)]
    assert abs(float(torch.stack(values).mean())) < 3 * float(torch.stack(values).std()) / math.sqrt(60)
    source, target = torch.randn(2, 32, 4, generator=generator)
    near, far = (float(mmd(source, target + shift)) for shift in (0.5, 2.0))
    assert 0 < near < far


def test_joint_mmd_multiplies_the_kernels_of_features_and_predictions(rows):
    predictions = [part.softmax(1) for part in rows]
    points = torch.cat(predictions).tolist()
    squares = [[sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for q in points] for p in points]
    features = naive_kernels(torch.cat(rows))
    kernel = [
        [f * math.exp(-d / (2 * 0.92**2)) for f, d in zip(*lines, strict=True)]
        for lines in zip(features, squares, strict=True)
    ]
    source, target = zip(rows, predictions, strict=True)
    found = joint_mmd(source, target)
    assert float(found) == pytest.approx(naive_mmd(kernel, 6), rel=1e-4)


def test_coral_is_the_distance_of_the_sample_covariances(rows):
    difference = torch.cov(rows[0].T) - torch.cov(rows[1].T)
    assert float(coral(*rows)) == pytest.approx(float(difference.square().sum()) / 36, rel=1e-5)
    assert float(coral(rows[0], rows[0] + 5)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("loss", ["mmd", "joint_mmd", "coral", "transport_cost"])
def test_autocast_changes_neither_a_distance_between_close_features_nor_its_gradient(loss):
    rng = torch.Generator().manual_seed(0)
    features = (10 + torch.randn(12, 8, generator=rng)).requires_grad_()
    logits, labels = torch.randn(12, 3, generator=rng), torch.arange(6) % 3
    source, target = features[:6], features[6:]
    distance = {
        "mmd": lambda: mmd(source, target),
        "joint_mmd": lambda: joint_mmd((source, logits[:6].softmax(1)), (target, logits[6:].softmax(1))),
        "coral": lambda: coral(source, target),
        "transport_cost": lambda: transport_cost(source, labels, target, logits[6:]),
    }[loss]
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = distance()
        found.append((value, *torch.autograd.grad(value, features, retain_graph=True)))
    for exact, mixed in zip(*found, strict=True):
        assert mixed.dtype == torch.float32
        assert torch.equal(exact, mixed)


def test_classifier_discrepancy_is_the_mean_absolute_difference():
    first, second = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3), 0.0]])
    assert float(classifier_discrepancy(first, second)) == pytest.approx(0.25)


def test_margin_disparity_is_the_papers_sum():
    source, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 3.0]])
    adversary = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])  # 3/4 on the predicted class
    opposed = torch.tensor([[0.0, math.log(4)]])  # 4/5 on the predicted class
    expected = 4 * -math.log(3 / 4) - math.log(1 / 5 + 1e-6)
    assert float(margin_disparity(source, adversary, target, opposed)) == pytest.approx(expected, rel=1e-5)


def test_margin_disparity_is_finite_for_certain_adversaries():
    certain = torch.tensor([[1e4, 0.0]], requires_grad=True)
    loss = margin_disparity(certain.detach(), certain, certain.detach(), certain)
    loss.backward()
    assert loss.isfinite()
    assert certain.grad.isfinite().all()


def test_nuclear_wasserstein_is_the_difference_of_nuclear_norms():
    even, equal = 100 * torch.eye(3).repeat(2, 1), 100 * torch.eye(3)[:1].repeat(6, 1)
    # Certain and even: three singular values of sqrt(2). Certain and equal: one of sqrt(6).
    expected = math.sqrt(6) / 6 - 3 * math.sqrt(2) / 6
    assert float(nuclear_wasserstein(even, equal)) == pytest.approx(expected, rel=1e-5)


def test_the_spectral_penalty_is_of_the_largest_singular_values(rows):
    squares = torch.linalg.eigvalsh(rows[0].T @ rows[0]).flip(0)
    assert float(batch_spectral_penalty(rows[0])) == pytest.approx(float(squares[0]), rel=1e-4)
    assert float(batch_spectral_penalty(rows[0], 2)) == pytest.approx(float(squares[:2].sum()), rel=1e-4)


def test_the_feature_norm_loss_is_the_squared_step_and_its_gradient_makes_norms_grow():
    features = torch.tensor([[3.0, 4.0], [0.6, 0.8]], requires_grad=True)
    loss = stepwise_feature_norm(features, 0.5)
    loss.backward()
    assert loss.item() == pytest.approx(0.25)
    assert torch.allclose(features.grad, -0.5 * torch.tensor([[0.6, 0.8], [0.6, 0.8]]))
