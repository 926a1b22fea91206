"""Gradients at the features against autograd by hand; measuring them changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutualign.data.types import Batch
from mutualign.evaluation.gradients import loss_gradients
from mutualign.methods import METHODS, Method, ParameterGroup, Update
from mutualign.nn.backbones import ManiCNN, TwoBlockCNN
from mutualign.nn.classifier import Classifier, Outputs
from mutualign.training.distributed import make_fabric


def built(name, backbone=ManiCNN, **config):
    torch.manual_seed(0)
    entry = METHODS[name]
    return entry.build(Classifier(backbone(3, 12, 12), 3), entry.config(**config))


def measured(method, progress=0.5):
    rng = torch.Generator().manual_seed(1)
    n_source, n_target = 8 * method.uses_source, 6 * method.uses_target
    images = torch.rand(n_source + n_target, 3, 12, 12, generator=rng)
    batch = Batch(images, torch.arange(n_source) % 3, torch.arange(n_target))

    def look():
        with torch.no_grad():
            features = method.classifier.features(images[n_source:])
            return Outputs(method.classifier.head(features), features)

    method.eval().begin_epoch(look)  # pseudo-labels, in the methods that make some
    method.train()
    return loss_gradients(method, batch, torch.tensor(progress), 0, make_fabric("float32", "cpu")), batch


def test_norms_are_those_of_autograd_by_hand():
    method = built("dann")
    found, batch = measured(method)
    method.eval()
    features = method.classifier.features(batch.images).detach().requires_grad_()
    classes = F.cross_entropy(method.classifier.head(features[:8]), batch.labels)
    domain = F.binary_cross_entropy_with_logits(method.discriminator(features), batch.is_source)
    expected = {
        "class": torch.autograd.grad(classes, features)[0].norm().item(),
        "domain": torch.autograd.grad(domain, features)[0].norm().item(),
    }
    assert found.norms == pytest.approx(expected, rel=1e-5)
    assert found.reversal == pytest.approx(-1, abs=1e-5)


class Players(Method):
    """Alternating players: features and head; a discriminator on detached features; a loss that reaches nothing."""

    def __init__(self, classifier, config=None):
        super().__init__(classifier, config)
        self.discriminator = nn.Linear(classifier.feature_dim, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def updates(self, batch, progress):
        self.seen += len(batch.images)  # state that a measurement must not touch
        features = self.classifier.features(batch.images)
        classes = F.cross_entropy(self.classifier.head(features[: batch.n_source]), batch.labels)
        detached = self.discriminator(features.detach()).square().mean()
        yield Update("main", {"class": classes, "detached": detached, "constant": torch.zeros(())})
        features = self.classifier.features(batch.images)
        yield Update("discriminator", {"domain": self.discriminator(features.detach()).mean()})

    def parameter_groups(self):
        return {
            "main": [ParameterGroup(list(self.classifier.parameters()))],
            "discriminator": [ParameterGroup(list(self.discriminator.parameters()))],
        }


def test_losses_of_players_that_do_not_train_the_features_are_left_out():
    found, _ = measured(Players(Classifier(ManiCNN(3, 12, 12), 3)))
    assert found.norms.keys() == {"class", "detached", "constant"}
    assert found.norms["class"] > 0
    assert found.norms["detached"] == found.norms["constant"] == 0


def test_a_method_without_updates_or_with_frozen_features_has_no_norms():
    class Nothing(Method):
        def updates(self, batch, progress):
            self.classifier.features(batch.images)
            yield from ()

        def parameter_groups(self):
            return {}

    assert measured(Nothing(Classifier(ManiCNN(3, 12, 12), 3)))[0] == ({}, None)
    frozen = built("source_only")
    frozen.classifier.features.requires_grad_(False)
    assert measured(frozen)[0] == ({}, None)


def test_a_buffer_may_take_part_in_a_loss_and_be_restored_afterwards():
    class Scaled(Method):
        def __init__(self, classifier):
            super().__init__(classifier)
            self.register_buffer("scale", torch.full((classifier.feature_dim,), 3.0))

        def forward(self, batch, progress):
            return {"scaled": (self.classifier.features(batch.images) * self.scale).sum()}, {}

    method = Scaled(Classifier(ManiCNN(3, 12, 12), 3))
    found, batch = measured(method)
    values = len(batch.images) * method.classifier.feature_dim
    assert found.norms == pytest.approx({"scaled": 3 * values**0.5}, rel=1e-5)
    assert measured(built("cdan", largest=16))[0].norms["domain"] > 0  # its random projections are buffers


def test_there_is_no_reversal_without_an_adversary_or_with_a_strength_of_zero():
    assert measured(built("source_only"))[0].reversal is None
    assert measured(built("mutual_align"), progress=0.0)[0].reversal is None  # the ramp starts at zero


@pytest.mark.parametrize("build", [*METHODS, Players], ids=str)
def test_measuring_leaves_weights_buffers_gradients_modes_and_generator_as_they_were(build):
    method = built(build, TwoBlockCNN) if isinstance(build, str) else build(Classifier(TwoBlockCNN(3, 12, 12), 3))
    measured(method)  # begins an epoch: what this sets is no change by a measurement
    before = {key: value.clone() for key, value in method.state_dict().items()}
    modes = {key: module.training for key, module in method.named_modules()}
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = measured(method)[0], measured(method)[0]
    assert torch.equal(torch.rand(1), expected)
    assert first == second
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert modes == {key: module.training for key, module in method.named_modules()}
    assert not method.classifier.features._forward_hooks
