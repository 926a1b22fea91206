"""DANN against its losses written out, and its gradient reversal."""

from __future__ import annotations

import math

import pytest
import torch


def at(progress):
    return torch.tensor(progress)


@pytest.mark.parametrize("weight", [1.0, 0.25])
@pytest.mark.parametrize(("n_source", "n_target"), [(8, 6), (2, 5)])
def test_the_losses_are_those_of_the_paper_row_by_row(build, make_batch, weight, n_source, n_target):
    method = build("dann", weight=weight).eval()
    batch = make_batch(method, n_source, n_target)
    losses, metrics = method(batch, at(0.3))

    features = method.classifier.features(batch.images)
    class_loss = domain_loss = 0.0
    right_class = right_domain = 0
    for i, row in enumerate(features):
        domain_logit = method.discriminator(row[None]).double().item()
        if i < n_source:
            domain_loss += math.log(1 + math.exp(-domain_logit))  # the source is 1
            right_domain += domain_logit > 0
            logits, label = method.classifier.head(row[None])[0].double().tolist(), int(batch.labels[i])
            class_loss += math.log(sum(map(math.exp, logits))) - logits[label]
            right_class += logits.index(max(logits)) == label
        else:
            domain_loss += math.log(1 + math.exp(domain_logit))
            right_domain += domain_logit <= 0
    n = n_source + n_target
    assert losses["class"].item() == pytest.approx(class_loss / n_source, rel=1e-5)
    assert losses["domain"].item() == pytest.approx(weight * domain_loss / n, rel=1e-5)
    assert metrics["class_accuracy"].item() == pytest.approx(right_class / n_source)
    assert metrics["domain_accuracy"].item() == pytest.approx(right_domain / n)


def test_a_discriminator_that_knows_nothing_has_a_domain_loss_of_ln_two(build, make_batch):
    method = build("dann")
    with torch.no_grad():
        method.discriminator.layers[2].weight.zero_()
        method.discriminator.layers[2].bias.zero_()
    losses, _ = method(make_batch(method), at(0.0))
    assert losses["domain"].item() == pytest.approx(math.log(2), rel=1e-6)


def domain_gradients(method, batch, progress):
    """Of the domain loss: at the first convolution, and at the discriminator."""
    torch.manual_seed(0)
    losses, _ = method(batch, at(progress))
    first, own = method.classifier.features.conv1.weight, method.discriminator.layers[0].weight
    return torch.autograd.grad(losses["domain"], [first, own])


@pytest.mark.parametrize("progress", [0.0, 0.2, 1.0])
def test_a_ramp_scales_the_gradient_at_the_features_and_leaves_the_discriminators(build, make_batch, progress):
    published, ramped = build("dann"), build("dann", reversal="ramp")
    batch = make_batch(published)
    at_features, at_discriminator = domain_gradients(published, batch, progress)
    scaled, same = domain_gradients(ramped, batch, progress)
    strength = 2 / (1 + math.exp(-10 * progress)) - 1
    largest = at_features.abs().max().item()
    assert largest > 0
    assert torch.allclose(scaled, strength * at_features, rtol=1e-4, atol=1e-5 * largest)
    assert torch.equal(same, at_discriminator)


def test_the_published_strength_is_one_from_the_first_step_to_the_last(build, make_batch):
    method = build("dann")
    batch = make_batch(method)
    first, last = domain_gradients(method, batch, 0.0), domain_gradients(method, batch, 1.0)
    assert torch.equal(first[0], last[0])


def test_the_losses_are_the_same_whichever_the_schedule(build, make_batch):
    """Reversal is the identity forward: a schedule changes gradients only."""
    values = []
    for reversal in ("constant", "ramp"):
        method = build("dann", reversal=reversal).eval()
        losses, _ = method(make_batch(method), at(0.1))
        values.append({name: loss.item() for name, loss in losses.items()})
    assert values[0] == values[1]
