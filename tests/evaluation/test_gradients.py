"""Gradients at the features against autograd by hand; the probe changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mutualign.data.types import Batch
from mutualign.evaluation.gradients import probe
from mutualign.methods import METHODS
from mutualign.methods.base import Method
from mutualign.nn.backbones import ManiCNN, TwoBlockCNN
from mutualign.nn.classifier import Classifier
from mutualign.training.distributed import make_fabric


def built(name, backbone=ManiCNN, **config):
    torch.manual_seed(0)
    config_type, build = METHODS[name]
    return build(Classifier(backbone(3, 12, 12), 3), config_type(**config))


def batch_for(method):
    rng = torch.Generator().manual_seed(1)
    n_target = 6 if method.uses_target else 0
    return Batch(torch.rand(8 + n_target, 3, 12, 12, generator=rng), torch.arange(8) % 3)


def probed(method, progress=0.5):
    return probe(method, batch_for(method), torch.tensor(progress), 0, make_fabric("float32", "cpu"))


def test_norms_are_those_of_autograd_by_hand():
    method = built("dann")
    batch = batch_for(method)
    method.eval()
    features = method.classifier.features(batch.images).detach().requires_grad_()
    classes = F.cross_entropy(method.classifier.head(features[:8]), batch.labels)
    domain = F.binary_cross_entropy_with_logits(method.discriminator(features), batch.is_source)
    expected = {
        "class": torch.autograd.grad(classes, features)[0].norm().item(),
        "domain": torch.autograd.grad(domain, features)[0].norm().item(),
    }
    found = probed(method)
    assert found.norms == pytest.approx(expected, rel=1e-5)
    assert found.reversal == pytest.approx(-1, abs=1e-5)


def test_a_loss_that_does_not_reach_the_features_has_norm_zero():
    class Detached(Method):
        def forward(self, batch, progress):
            features = self.classifier.features(batch.images)
            alone = self.classifier.head.layers if hasattr(self.classifier.head, "layers") else self.classifier.head
            return {
                "class": F.cross_entropy(self.classifier.head(features), batch.labels),
                "detached": alone(features.detach()).square().mean(),
                "constant": torch.zeros(()),
            }, {}

    torch.manual_seed(0)
    method = Detached(Classifier(ManiCNN(3, 12, 12), 3))
    method.uses_target = False
    norms = probed(method).norms
    assert norms["class"] > 0
    assert norms["detached"] == norms["constant"] == 0


def test_where_nothing_is_reversed_there_is_no_direction():
    assert probed(built("source_only")).reversal is None
    assert probed(built("mutual_align"), progress=0.0).reversal is None  # the ramp begins at zero


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("backbone", [ManiCNN, TwoBlockCNN])
def test_a_probe_leaves_weights_statistics_gradients_mode_and_generator_as_they_were(name, backbone):
    method = built(name, backbone).train()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    modes = {key: module.training for key, module in method.named_modules()}
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = probed(method), probed(method)
    assert torch.equal(torch.rand(1), expected)
    assert first == second
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert modes == {key: module.training for key, module in method.named_modules()}
    assert not method.classifier.features._forward_hooks
