"""The heads: their shapes, their published sizes, and that all of them return logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutualign.nn.backbones import BACKBONES, ManiCNN, build_backbone
from mutualign.nn.classifier import Classifier
from mutualign.nn.heads import ConcatenatingCritic, CosineCritic, DomainDiscriminator, ManiHead, Projection, WideLinear

HEADS = {
    "class": (lambda: ManiHead(20, 7), 1, (5, 7)),
    "domain": (lambda: DomainDiscriminator(20), 1, (5,)),
    "projection": (lambda: Projection(20), 1, (5, 64)),
    "critic": (lambda: ConcatenatingCritic(20), 2, (5,)),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_returns_its_shape_for_any_batch(name):
    build, inputs, shape = HEADS[name]
    head = build()
    assert head(*torch.randn(inputs, 5, 20)).shape == shape
    assert head(*torch.randn(inputs, 1, 20)).shape == (1, *shape[1:])


@pytest.mark.parametrize("name", HEADS)
def test_no_head_bounds_or_normalises_its_output(name):
    """A ReLU network without biases doubles its output when its input doubles; a squashed one does not."""
    build, inputs, _ = HEADS[name]
    head = build().eval()
    with torch.no_grad():
        for key, parameter in head.named_parameters():
            if key.endswith("bias"):
                parameter.zero_()
        values = torch.randn(inputs, 5, 20)
        once, twice = head(*values), head(*(1024 * values))
    assert torch.allclose(twice, 1024 * once, rtol=1e-4)
    assert float(twice.abs().max()) > 1


@pytest.mark.parametrize("name", ["class", "domain", "critic", "cosine critic"])
def test_what_goes_into_a_loss_is_float32_under_autocast_too(name):
    build, inputs, shape = (HEADS | {"cosine critic": (lambda: CosineCritic(20), 2, (5, 5))})[name]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = build().eval()(*torch.randn(inputs, 5, 20))
    assert (outputs.dtype, outputs.shape) == (torch.float32, shape)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_logits_of_every_network_are_float32_under_autocast_too(name):
    shape = (32, 1, 1) if name == "bottleneck" else (3, 32, 32)
    classifier = Classifier(build_backbone(name, *shape), 4).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert classifier(torch.rand(2, *shape)).dtype == torch.float32


def test_a_wide_linear_layer_is_a_linear_layer_and_keeps_double_precision():
    wide, plain = WideLinear(5, 3), nn.Linear(5, 3)
    plain.load_state_dict(wide.state_dict())
    rows = torch.randn(4, 5)
    assert torch.equal(wide(rows), plain(rows))
    assert wide.double()(rows.double()).dtype == torch.float64


def test_nothing_in_the_published_classifier_normalises():
    modules = Classifier(ManiCNN(1, 12, 12), 3).modules()
    layers = {type(module).__name__ for module in modules if not [*module.children()]}
    assert layers == {"ImageConv2d", "Conv2d", "Dropout", "WideLinear", "Linear", "ReLU"}


def linear_sizes(head):
    return [(layer.in_features, layer.out_features) for layer in head.modules() if isinstance(layer, nn.Linear)]


def test_the_heads_have_the_published_sizes():
    assert linear_sizes(ManiHead(6400, 10)) == [(6400, 32), (32, 10)]
    assert linear_sizes(DomainDiscriminator(6400)) == [(6400, 32), (32, 1)]
    assert linear_sizes(Projection(6400)) == [(6400, 64)]
    assert linear_sizes(ConcatenatingCritic()) == [(128, 512), (512, 512), (512, 1)]
    assert [type(layer).__name__ for layer in ManiHead(4, 2)] == ["Linear", "ReLU", "Dropout", "WideLinear"]
    assert "p=0.5" in repr(ManiHead(4, 2))


def test_the_projection_is_never_negative():
    torch.manual_seed(0)
    projected = Projection(20)(torch.randn(50, 20))
    assert projected.min().item() == 0
    assert projected.max().item() > 0


def test_the_critic_scores_the_concatenation_of_a_pair_in_its_order():
    torch.manual_seed(0)
    critic = ConcatenatingCritic(3, 8)
    a, b = torch.randn(2, 6, 3)
    first, second, third = (layer for layer in critic.layers if isinstance(layer, nn.Linear))
    for i in range(6):
        hidden = F.relu(first.weight @ torch.cat([a[i], b[i]]) + first.bias)
        hidden = F.relu(second.weight @ hidden + second.bias)
        assert torch.allclose(critic(a, b)[i], (third.weight @ hidden + third.bias)[0], atol=1e-6)
    assert not torch.allclose(critic(a, b), critic(b, a))


def test_the_cosine_critic_scores_every_pair_by_the_cosine_of_its_projections():
    torch.manual_seed(0)
    critic = CosineCritic(7, 4)
    a, b = torch.randn(3, 7), torch.randn(5, 7)
    scores = critic(a, b)
    assert scores.shape == (3, 5)
    for i in range(3):
        for j in range(5):
            cosine = F.cosine_similarity(critic.project(a[i]), critic.project(b[j]), dim=0)
            assert scores[i, j].item() == pytest.approx(5 * cosine.item() - 2, rel=1e-5)


def test_the_cosine_critic_learns_its_scale_and_bias_and_does_not_see_the_length_of_features():
    critic = CosineCritic(7, 4)
    with torch.no_grad():
        critic.project.bias.zero_()
    a, b = torch.randn(3, 7), torch.randn(5, 7)
    assert torch.allclose(critic(a, b), critic(9 * a, 0.1 * b), rtol=1e-4, atol=1e-5)
    critic(a, b).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in critic.parameters())


@pytest.mark.parametrize("critic", [CosineCritic(7, 4), ConcatenatingCritic(7, 8)])
def test_critics_work_in_float64_and_under_torchs_transforms(critic):
    critic, rows = critic.double(), torch.randn(2, 3, 5, 7, dtype=torch.float64)
    scores = torch.func.vmap(critic)(*rows)
    assert scores.dtype == torch.float64
    assert torch.allclose(scores, torch.stack([critic(a, b) for a, b in zip(*rows, strict=True)]))
    assert torch.autograd.gradcheck(critic, [part.requires_grad_() for part in torch.randn(2, 3, 7).double()])


def test_the_class_weights_are_those_of_the_last_layer_if_it_is_linear():
    for name in ("mani_cnn", "mlp"):
        classifier = Classifier(build_backbone(name, 1, 12, 12), 5)
        *_, last = (layer for layer in classifier.head.modules() if isinstance(layer, nn.Linear))
        assert torch.equal(classifier.class_weights, last.weight)
    classifier.head = nn.Sequential(nn.Linear(classifier.feature_dim, 7), nn.ReLU())
    assert classifier.class_weights is None
