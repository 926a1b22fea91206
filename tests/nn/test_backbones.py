"""The networks against plain torch ones with the same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mutualign.errors import MutualignError
from mutualign.nn.backbones import BACKBONES, FAMILIES, MLP, ManiCNN, TwoBlockCNN, build_backbone, register_backbone
from mutualign.nn.classifier import Classifier
from mutualign.nn.layers import BatchNorm1d, BatchNorm2d, batch_norms, standardise

SHAPES = [(3, 28, 28), (1, 10, 10), (2, 11, 32)]


def reference_features(backbone, images):
    """conv - ReLU - conv - ReLU - max-pool in the published order, then (row, column, channel) order."""
    maps = F.relu(F.conv2d(images, backbone.conv1.weight, backbone.conv1.bias))
    maps = F.relu(F.conv2d(maps, backbone.conv2.weight, backbone.conv2.bias))
    maps = F.max_pool2d(maps, 2)
    return torch.stack([m.permute(1, 2, 0).reshape(-1) for m in maps])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_classifier_is_the_published_network_whatever_the_memory_layout_of_the_images(shape):
    torch.manual_seed(0)
    classifier = Classifier(ManiCNN(*shape), 10).eval()
    images = torch.rand(3, *shape)
    first, last = classifier.head[0], classifier.head[3]
    features = reference_features(classifier.features, images)
    assert torch.allclose(classifier.features(images), features, rtol=1e-5, atol=1e-6)
    expected = F.linear(F.relu(F.linear(features, first.weight, first.bias)), last.weight, last.bias)
    for layout in (torch.contiguous_format, torch.channels_last):
        logits = classifier(images.contiguous(memory_format=layout))
        assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_batch_norm_is_one_that_processes_share(name):
    assert all(isinstance(layer, BatchNorm1d | BatchNorm2d) for layer in batch_norms(build_backbone(name, 3, 32, 32)))


def test_dropout_of_a_quarter_comes_after_the_features_in_training_only():
    torch.manual_seed(0)
    backbone = ManiCNN(3, 28, 28)
    images = torch.rand(8, 3, 28, 28)
    plain = reference_features(backbone, images)
    assert torch.allclose(backbone.eval()(images), plain, rtol=1e-5, atol=1e-6)
    features = backbone.train()(images)
    lit = plain > 1e-3
    kept = features[lit] != 0
    assert torch.allclose(features[lit][kept], plain[lit][kept] * 4 / 3, rtol=1e-3, atol=1e-5)
    assert float(kept.double().mean()) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "shape", "features", "parameters"),
    [
        (ManiCNN, (3, 28, 28), 6400, (75 * 32 + 32) + (25 * 32 * 64 + 64) + (6400 * 32 + 32) + (32 * 10 + 10)),
        (ManiCNN, (1, 28, 28), 6400, (25 * 32 + 32) + (25 * 32 * 64 + 64) + (6400 * 32 + 32) + (32 * 10 + 10)),
        (TwoBlockCNN, (3, 28, 28), 128, 75 * 32 + 9 * 64 * 96 + 2 * 160 + (1600 * 128 + 128) + (128 * 10 + 10)),
    ],
)
def test_features_and_parameters_are_as_many_as_the_closed_forms_say(kind, shape, features, parameters):
    classifier = Classifier(kind(*shape), 10)
    assert (classifier.feature_dim, classifier.classes) == (features, 10)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == parameters


@pytest.mark.parametrize(("name", "least"), [("mani_cnn", 10), ("two_block_cnn", 12), ("small_resnet", 9)])
def test_images_that_are_too_small_are_refused_with_their_size_the_least_one_and_a_way_out(name, least):
    for height, width in ((least - 1, 28), (28, least - 1), (1, 1)):
        message = rf"{name}: images of {height}x{width} are too small; it takes {least}x{least} or more\n  hint: .*mlp"
        with pytest.raises(MutualignError, match=message):
            build_backbone(name, 3, height, width)
    assert build_backbone(name, 1, least, 28).eval()(torch.rand(1, 1, least, 28)).isfinite().all()


def test_backbones_are_found_by_name_and_new_ones_register_themselves():
    assert type(build_backbone("two_block_cnn", 3, 16, 16)) is BACKBONES["two_block_cnn"] is TwoBlockCNN
    try:
        register_backbone("wide")(MLP)
        assert type(build_backbone("wide", 3, 4, 4)) is MLP
    finally:
        del BACKBONES["wide"]
    assert set(FAMILIES) == {"finetune:", "timm:"}
    with pytest.raises(MutualignError, match=r'"small_resnt"; did you mean "small_resnet"\? \(or timm:NAME'):
        build_backbone("small_resnt", 3, 16, 16)
    with pytest.raises(MutualignError, match=r'"timm:"; allowed: .*mlp, .*two_block_cnn.* \(or timm:NAME'):
        build_backbone("timm:", 3, 16, 16)


# The networks of the project ------------------------------------------------------------------------------------------


def plain_two_blocks(classifier, images, training):
    """Both blocks, dropout left out, and two linear layers, by torch's functions."""
    part = classifier.features
    maps = (images - images.mean((2, 3), keepdim=True)) / (images.std((2, 3), keepdim=True, correction=0) + 0.05)
    layers = ((part.conv1, part.norm1, 0, 2), (part.conv2, part.norm2, 1, 1), (part.conv3, part.norm3, 0, 2))
    for conv, norm, padding, pooled in layers:
        maps = F.max_pool2d(F.conv2d(maps, conv.weight, padding=padding), pooled)
        mean, variance = (maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0))
        if not training:
            mean, variance = norm.running_mean, norm.running_var
        maps = (maps - mean[:, None, None]) / (variance[:, None, None] + norm.eps).sqrt()
        maps = F.relu(maps * norm.weight[:, None, None] + norm.bias[:, None, None])
    flat = torch.stack([m.permute(1, 2, 0).reshape(-1) for m in maps])
    hidden = F.relu(F.linear(flat, part.linear.weight, part.linear.bias))
    return F.linear(hidden, classifier.head.weight, classifier.head.bias)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 12, 23)])
def test_the_two_block_classifier_is_the_plain_network_with_its_weights(shape, training):
    torch.manual_seed(0)
    classifier = Classifier(TwoBlockCNN(*shape), 10).train(training)
    classifier.features.dropout.eval()
    with torch.no_grad():
        for norm in (classifier.features.norm1, classifier.features.norm2, classifier.features.norm3):
            for values in (norm.weight, norm.bias, norm.running_mean):
                values.copy_(torch.rand_like(values) + 0.5)
    images = torch.rand(6, *shape)
    expected = plain_two_blocks(classifier, images, training)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = classifier(images.contiguous(memory_format=layout))
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
        if training:  # the first call moved the running statistics, which training does not use
            assert not torch.allclose(classifier.features.norm1.running_var, torch.ones(32))


def test_a_change_of_contrast_or_brightness_hardly_changes_what_the_two_block_network_sees():
    images = torch.rand(4, 3, 28, 28)
    assert torch.allclose(standardise(0.5 * images + 0.3), standardise(images), atol=0.5)
    found = standardise(images)
    assert torch.allclose(found.mean((2, 3)), torch.zeros(4, 3), atol=1e-5)
    assert found.std((2, 3)).min() > 0.8


@pytest.mark.parametrize("side", [28, 64])
def test_a_flat_image_stays_flat_and_has_a_finite_gradient(side):
    levels = torch.linspace(0, 1, 41).view(-1, 1, 1, 1).expand(-1, 3, side, side)
    assert standardise(levels).abs().max().item() < 0.01
    probe = 1e-2 * F.normalize(torch.randn(3 * side * side), dim=0).view(1, 3, side, side)  # of adversarial training
    images = (levels + probe).requires_grad_()
    assert torch.autograd.grad(standardise(images).square().sum(), images)[0].isfinite().all()


def test_a_batch_of_one_vector_can_be_trained_on_and_images_of_any_size_are_flattened():
    torch.manual_seed(0)
    net, vector = MLP(5, 1, 1).train(), torch.randn(1, 5)
    expected = F.relu(net.linear(F.relu(vector @ net.hidden.weight.T + net.hidden.bias)))
    assert torch.allclose(net(vector[..., None, None]), expected, atol=1e-6)
    images = torch.rand(2, 3, 4, 7)
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        features = MLP(3, 4, 7)(images.contiguous(memory_format=layout))
        torch.manual_seed(0)
        vectors = MLP(84, 1, 1)(images.reshape(2, 84, 1, 1))
        assert torch.allclose(features, vectors, atol=1e-6)
