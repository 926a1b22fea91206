"""Virtual adversarial training, against the closed form of a linear classifier."""

from __future__ import annotations

import pytest
import torch

from mutualign.nn.losses import divergence, virtual_adversarial_loss

WEIGHTS = torch.tensor([[1.0, -1.0], [2.0, 0.5], [0.0, 0.3]])  # three values of an image to two logits


def network(images):
    return images.flatten(1) @ WEIGHTS.to(images.dtype)


def test_divergence_is_kl_of_the_teacher_from_the_student():
    teacher, student = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    p, q = teacher.softmax(1), student.softmax(1)
    expected = (p * (p / q).log()).sum(1).mean().item()
    assert divergence(teacher, student).item() == pytest.approx(expected, rel=1e-5)
    assert torch.autograd.grad(divergence(teacher, student), teacher, allow_unused=True)[0] is None


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_worst_direction_of_a_two_class_linear_classifier_is_the_difference_of_its_weights(precision):
    images = torch.rand(4, 1, 3, 1, generator=torch.Generator().manual_seed(0))
    worst = WEIGHTS[:, 0] - WEIGHTS[:, 1]
    step = 0.5 * (worst / worst.norm()).view(1, 1, 3, 1)
    both = [divergence(network(images), network(images + sign * step)) for sign in (1, -1)]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        found = virtual_adversarial_loss(network, images, radius=0.5)
    each = sorted(float(value) for value in both)
    tolerance = 1e-3 if precision == "float32" else 5e-2
    assert each[0] * (1 - tolerance) <= float(found) <= each[1] * (1 + tolerance)


def test_the_search_leaves_no_gradient_in_the_network():
    layer = torch.nn.Linear(3, 2)
    images = torch.rand(4, 1, 3, 1)
    loss = virtual_adversarial_loss(lambda x: layer(x.flatten(1)), images)
    assert layer.weight.grad is None
    loss.backward()
    assert layer.weight.grad.abs().max() > 0


def test_what_is_random_in_the_network_is_drawn_alike_in_all_passes():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(48, 3))
    images = torch.rand(8, 3, 4, 4)
    assert divergence(network(images), network(images)).item() > 1e-3  # of the same images
    assert virtual_adversarial_loss(network, images, radius=1e-4).item() < 1e-6
    first, second = (virtual_adversarial_loss(network, images) for _ in range(2))
    assert first != second  # each call draws anew
