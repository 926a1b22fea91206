"""CDAN, BSP, MDD and DALN: what is special to each, beside the contract of all methods."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mutualign.nn.losses import batch_spectral_penalty, entropy, nuclear_wasserstein

HALFWAY = torch.tensor(0.5)


def at_features(method, batch, loss, progress=HALFWAY):
    """The gradient of one loss at the features, and the features."""
    seen = []
    hook = method.classifier.features.register_forward_hook(lambda module, inputs, output: seen.append(output))
    torch.manual_seed(0)
    losses, _ = method(batch, progress)
    hook.remove()
    return torch.autograd.grad(losses[loss], seen[0])[0], seen[0].detach()


def test_cdan_conditions_on_every_product_of_a_feature_and_a_probability(build):
    method = build("cdan", classes=4)
    features, probabilities = torch.randn(3, method.classifier.feature_dim), torch.rand(3, 4)
    expected = [[p * f for p in row for f in values] for row, values in zip(probabilities, features, strict=True)]
    assert torch.equal(method.conditioned(features, probabilities), torch.tensor(expected))


def test_cdans_random_products_keep_inner_products_on_average(build):
    torch.manual_seed(0)
    method = build("cdan", classes=4, largest=100)
    method.feature_projection = torch.randn(method.classifier.feature_dim, 100_000)
    method.class_projection = torch.randn(4, 100_000)
    method.config = type(method.config)(largest=100_000)
    features, probabilities = torch.rand(2, method.classifier.feature_dim), torch.rand(2, 4)
    first, second = method.conditioned(features, probabilities)
    expected = (features[0] @ features[1]) * (probabilities[0] @ probabilities[1])
    assert float(first @ second) == pytest.approx(float(expected), rel=0.1)


def test_a_second_stage_of_cdan_has_the_random_products_that_its_discriminator_was_trained_on(build):
    first, second = build("cdan", largest=16, seed=1), build("cdan", largest=16, seed=2)
    features, probabilities = torch.rand(4, first.classifier.feature_dim), torch.rand(4, 3)

    def judged(method):
        return method.discriminator(method.conditioned(features, probabilities))

    assert not torch.equal(judged(second), judged(first))
    assert torch.equal(judged(second.warm_start_from(first)), judged(first))


def test_cdan_weights_certain_images_more_and_no_gradient_passes_through_the_condition(build, make_batch):
    method = build("cdan", classes=3).eval()
    batch = make_batch(method)
    with torch.no_grad():
        features = method.classifier.features(batch.images)
        logits = method.classifier.head(features)
        weights = 1 + torch.exp(-entropy(logits))
        products = (logits.softmax(1)[:, :, None] * features[:, None]).flatten(1)
        each = F.binary_cross_entropy_with_logits(method.discriminator(products), batch.is_source, reduction="none")
        expected = float((each * weights).mean() / weights.mean())
    losses, _ = method(batch, HALFWAY)
    assert losses["domain"].item() == pytest.approx(expected, rel=1e-5)
    losses["domain"].backward()
    assert all(weight.grad is None for weight in method.classifier.head.parameters())


def test_bsp_adds_the_penalty_of_each_domain_to_dann(build, make_batch):
    method, dann = build("bsp", weight=0.5).eval(), build("dann", reversal="ramp").eval()
    dann.load_state_dict(method.state_dict())
    batch = make_batch(method)
    (found, _), (expected, _) = method(batch, HALFWAY), dann(batch, HALFWAY)
    features = method.classifier.features(batch.images)
    penalty = batch_spectral_penalty(features[:8]) + batch_spectral_penalty(features[8:])
    assert found["spectral"].item() == pytest.approx(0.5 * penalty.item(), rel=1e-5)
    assert {name: found[name].item() for name in expected} == {name: loss.item() for name, loss in expected.items()}


def test_daln_separates_the_domains_by_the_head_and_joins_them_by_the_features(build, make_batch):
    method = build("daln", reversal="constant").eval()
    batch = make_batch(method)
    found, features = at_features(method, batch, "discrepancy")
    features.requires_grad_()
    logits = method.classifier.head(features)
    plain = nuclear_wasserstein(logits[:8], logits[8:])
    assert torch.allclose(found, -torch.autograd.grad(plain, features)[0], rtol=1e-4, atol=1e-7)


def test_mdd_reverses_a_tenth_of_the_gradient_and_leaves_the_main_head_alone(build, make_batch):
    method = build("mdd").eval()
    batch = make_batch(method)
    found, features = at_features(method, batch, "disparity", torch.tensor(1.0))
    features.requires_grad_()
    with torch.no_grad():
        main = method.classifier.head(features)
    opponent = method.opponent(features)
    agreement = F.cross_entropy(opponent[:8], main[:8].argmax(1))
    chosen = opponent[8:].softmax(1).gather(1, main[8:].argmax(1, keepdim=True))
    plain = 4 * agreement - torch.log(1 - chosen + 1e-6).mean()
    expected = -0.1 * torch.autograd.grad(plain, features)[0]
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-7)
    losses, _ = method(batch, HALFWAY)
    losses["disparity"].backward()
    assert all(weight.grad is None for weight in method.classifier.head.parameters())
