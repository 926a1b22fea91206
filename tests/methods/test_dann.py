"""DANN against its losses as a loop over rows, and its gradient reversal."""

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


def test_a_ramp_changes_the_gradient_at_the_features_only(build, make_batch):
    """Reversal is the identity forward, and its strength follows 2 / (1 + exp(-10 p)) - 1."""
    published, ramped = build("dann").eval(), build("dann", reversal="ramp").eval()
    batch = make_batch(published)
    for progress in (0.0, 0.2, 1.0):
        found = []
        for method in (published, ramped):
            loss = method(batch, at(progress))[0]["domain"]
            weights = [method.classifier.features.conv1.weight, method.discriminator.layers[0].weight]
            found.append((loss.item(), *torch.autograd.grad(loss, weights)))
        (plain, features, discriminator), (same, scaled, unscaled) = found
        strength = 2 / (1 + math.exp(-10 * progress)) - 1
        largest = features.abs().max().item()
        assert largest > 0
        assert torch.allclose(scaled, strength * features, rtol=1e-4, atol=1e-5 * largest)
        assert torch.equal(unscaled, discriminator)
        assert same == plain
