"""The small residual network against a plain one, its cost, and what holds for every backbone of small images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mutualign.nn.backbones import SmallResNet, build_backbone
from mutualign.nn.classifier import Classifier
from mutualign.nn.layers import Dropout

SIDES = [9, 28, 100]
SMALL = ["mani_cnn", "mlp", "small_resnet", "two_block_cnn"]


def plain_norm(maps, part, training):
    """A convolution and batch norm, by their definitions."""
    conv, norm = part
    maps = F.conv2d(maps, conv.weight, stride=conv.stride, padding=conv.padding)
    mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)
    if not training:
        mean, variance = norm.running_mean, norm.running_var
    maps = (maps - mean[:, None, None]) / (variance[:, None, None] + norm.eps).sqrt()
    return maps * norm.weight[:, None, None] + norm.bias[:, None, None]


def plain_resnet(classifier, images, training):
    part = classifier.features
    maps = (images - images.mean((2, 3), keepdim=True)) / (images.std((2, 3), keepdim=True, correction=0) + 0.05)
    for layer in part.stem[::2]:
        maps = F.relu(plain_norm(maps, layer, training))
    for block in part.blocks:
        inner = plain_norm(F.relu(plain_norm(maps, block.first, training)), block.second, training)
        maps = F.relu(plain_norm(maps, block.shortcut, training) + inner)
    return F.linear(maps.mean((2, 3)), classifier.head.weight, classifier.head.bias)


def randomise_norms(module):
    """Scales, shifts and running statistics that are not 0 and 1, so that leaving one out shows."""
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                    values.copy_(torch.rand_like(values) + 0.5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(1, 17, 23), (3, 100, 53)])
def test_the_residual_classifier_is_the_plain_network_with_its_weights(shape, training):
    torch.manual_seed(0)
    classifier = Classifier(SmallResNet(*shape), 10)
    randomise_norms(classifier)
    images = torch.rand(4, *shape)
    expected = plain_resnet(classifier, images, training)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = classifier.train(training)(images.contiguous(memory_format=layout))
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "convolutions", "rows", "columns"),
    [
        (9, 9, 1, 9, 9),
        (47, 200, 1, 47, 200),
        (48, 48, 1, 24, 24),
        (95, 95, 1, 48, 48),
        (96, 128, 2, 24, 32),
        (191, 191, 2, 48, 48),
        (192, 192, 3, 24, 24),
        (512, 384, 4, 32, 24),
    ],
)
def test_the_stem_makes_the_shorter_side_24_to_48_pixels(height, width, convolutions, rows, columns):
    stem = SmallResNet(3, height, width).stem
    assert sum(isinstance(layer, torch.nn.Sequential) for layer in stem) == convolutions
    assert stem.eval()(torch.rand(1, 3, height, width)).shape == (1, 32, rows, columns)


def test_the_cost_at_64x64_is_what_the_docstring_says():
    backbone = SmallResNet(3, 64, 64).eval()
    convolutions = 9 * (3 * 32 + 2 * 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 32 * 32 + 32 * 64 + 64 * 128
    norms = 2 * (32 + 3 * 32 + 3 * 64 + 3 * 128)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == convolutions + norms == 308_448
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.rand(1, 3, 64, 64))
    assert counter.get_total_flops() / 2 == pytest.approx(13e6, rel=0.02)


@pytest.mark.parametrize("side", SIDES)
def test_a_gradient_reaches_every_parameter_and_pixel_also_from_a_single_image(side):
    torch.manual_seed(0)
    classifier = Classifier(SmallResNet(3, side, side), 4).train()
    images = torch.rand(2, 3, side, side, requires_grad=True)
    assert classifier.features(images).shape == (2, classifier.feature_dim)
    F.cross_entropy(classifier(images), torch.tensor([1, 3])).backward()
    for name, parameter in [*classifier.named_parameters(), ("images", images)]:
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max().item() > 0, name
    assert classifier(images[:1]).isfinite().all()


@pytest.mark.parametrize("name", SMALL)
def test_in_evaluation_an_image_is_seen_alone_whatever_else_is_in_the_batch(name):
    torch.manual_seed(0)
    classifier = Classifier(build_backbone(name, 3, 20, 20), 5)
    randomise_norms(classifier)
    images = torch.rand(6, 3, 20, 20)
    together = classifier.eval()(images)
    alone = torch.cat([classifier(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_bf16_autocast_gives_nearly_the_same_and_finite_gradients(name):
    torch.manual_seed(0)
    classifier = Classifier(build_backbone(name, 3, 28, 28), 10).train()
    for module in classifier.modules():
        module.train(not isinstance(module, Dropout))
    images = torch.rand(8, 3, 28, 28)
    expected = classifier(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = classifier(images)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert torch.allclose(found, expected, atol=0.1)
    found.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in classifier.parameters())


def test_the_residual_network_hardly_sees_contrast_and_brightness():
    torch.manual_seed(0)
    backbone = SmallResNet(3, 32, 32).eval()
    images = torch.rand(4, 3, 32, 32).mul(4).round().div(4)  # far from flat: the 0.05 counts little
    found = backbone(0.8 * images + 0.15)
    assert F.cosine_similarity(found, backbone(images)).min().item() > 0.999
    assert F.cosine_similarity(found, backbone(images.flip(0))).max().item() < 0.999


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's compiler does
@pytest.mark.parametrize("name", SMALL)
def test_the_network_compiles_to_one_graph_with_the_same_logits(name):
    from jaxtyping import config

    torch.manual_seed(0)
    classifier = Classifier(build_backbone(name, 3, 16, 16), 3).train()
    for module in classifier.modules():
        module.train(not isinstance(module, Dropout))
    images = torch.rand(4, 3, 16, 16)
    config.update("jaxtyping_disable", True)
    try:
        compiled = torch.compile(classifier, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(images), classifier(images), atol=1e-6)
    finally:
        config.update("jaxtyping_disable", False)
        torch._dynamo.reset()
