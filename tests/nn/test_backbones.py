"""The networks against plain torch ones with the same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mutualign.errors import MutualignError
from mutualign.nn.backbones import BACKBONES, MLP, ManiCNN, SmallResNet, TwoBlockCNN, build_backbone, standardise
from mutualign.nn.classifier import Classifier

SHAPES = [(3, 28, 28), (1, 28, 28), (3, 12, 17), (1, 10, 10), (2, 11, 32)]


def reference_features(backbone, images):
    """conv - ReLU - conv - ReLU - max-pool in the published order, then (row, column, channel) order."""
    maps = F.relu(F.conv2d(images, backbone.conv1.weight, backbone.conv1.bias))
    maps = F.relu(F.conv2d(maps, backbone.conv2.weight, backbone.conv2.bias))
    maps = F.max_pool2d(maps, 2)
    return torch.stack([m.permute(1, 2, 0).reshape(-1) for m in maps])


@pytest.mark.parametrize("shape", SHAPES)
def test_features_are_those_of_a_plain_network_in_the_published_order(shape):
    torch.manual_seed(0)
    backbone = ManiCNN(*shape).eval()
    images = torch.rand(4, *shape)
    features = backbone(images)
    assert features.shape == (4, backbone.feature_dim)
    assert torch.allclose(features, reference_features(backbone, images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_classifier_is_the_published_network_whatever_the_memory_layout_of_the_images(shape):
    torch.manual_seed(0)
    classifier = Classifier(ManiCNN(*shape), 10).eval()
    images = torch.rand(3, *shape)
    first, last = classifier.head[0], classifier.head[3]
    features = reference_features(classifier.features, images)
    expected = F.linear(F.relu(F.linear(features, first.weight, first.bias)), last.weight, last.bias)
    for layout in (torch.contiguous_format, torch.channels_last):
        logits = classifier(images.contiguous(memory_format=layout))
        assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_images_of_28x28_have_the_published_6400_features():
    assert ManiCNN(3, 28, 28).feature_dim == 6400
    assert ManiCNN(1, 28, 28).feature_dim == 64 * ((28 - 4 - 4) // 2) ** 2


@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (1, 37)])
def test_the_number_of_parameters_is_the_closed_form(channels, classes):
    classifier = Classifier(ManiCNN(channels, 28, 28), classes)
    convolutions = (25 * channels * 32 + 32) + (25 * 32 * 64 + 64)
    head = (6400 * 32 + 32) + (32 * classes + classes)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == convolutions + head
    assert classifier.classes == classes


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


@pytest.mark.parametrize(("height", "width"), [(9, 28), (28, 9), (8, 8), (4, 4), (1, 1)])
def test_images_that_are_too_small_are_refused_with_their_size_and_the_least_one(height, width):
    with pytest.raises(MutualignError, match=rf"{height}x{width} are too small; it takes 10x10"):
        ManiCNN(3, height, width)


def test_the_networks_are_known_by_name():
    named = {"mani_cnn": ManiCNN, "two_block_cnn": TwoBlockCNN, "small_resnet": SmallResNet, "mlp": MLP}
    assert named == BACKBONES
    assert all(type(build_backbone(name, 3, 16, 16)) is kind for name, kind in named.items())


def test_an_unknown_network_is_answered_with_the_nearest_and_with_the_way_to_others():
    with pytest.raises(MutualignError, match=r'"small_resnt"; did you mean "small_resnet"\? \(or timm:NAME'):
        build_backbone("small_resnt", 3, 16, 16)
    with pytest.raises(MutualignError, match=r'"timm:"; allowed: mlp, .*two_block_cnn \(or timm:NAME'):
        build_backbone("timm:", 3, 16, 16)


# The project's own network --------------------------------------------------------------------------------------------


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


def test_the_two_block_classifier_stays_below_a_million_parameters():
    count = sum(parameter.numel() for parameter in Classifier(TwoBlockCNN(3, 28, 28), 10).parameters())
    assert count == 75 * 32 + 64 + 9 * 64 * (32 + 64) + 256 + (1600 * 128 + 128) + (128 * 10 + 10) == 264_234


def test_a_change_of_contrast_or_brightness_hardly_changes_what_the_two_block_network_sees():
    images = torch.rand(4, 3, 28, 28)
    assert torch.allclose(standardise(0.5 * images + 0.3), standardise(images), atol=0.5)
    found = standardise(images)
    assert torch.allclose(found.mean((2, 3)), torch.zeros(4, 3), atol=1e-5)
    assert found.std((2, 3)).min() > 0.8


def test_a_flat_image_is_standardised_to_zero():
    assert standardise(torch.full((2, 3, 5, 5), 0.3)).abs().max().item() < 0.01


@pytest.mark.parametrize(("height", "width"), [(11, 28), (28, 11), (4, 4)])
def test_images_too_small_for_two_blocks_are_refused_with_their_size_and_the_least_one(height, width):
    with pytest.raises(MutualignError, match=rf"two_block_cnn: images of {height}x{width} .* takes 12x12 or more"):
        TwoBlockCNN(3, height, width)


def test_vectors_go_through_two_linear_layers_and_a_linear_head():
    torch.manual_seed(0)
    classifier = Classifier(MLP(5, 1, 1), 3)
    vectors = torch.randn(4, 5)
    net = classifier.features
    features = F.relu(net.linear(F.relu(vectors @ net.hidden.weight.T + net.hidden.bias)))
    assert torch.allclose(classifier(vectors[..., None, None]), classifier.head(features), atol=1e-6)


def test_a_batch_of_one_vector_can_be_trained_on_and_images_of_any_size_are_flattened():
    torch.manual_seed(0)
    assert MLP(5, 1, 1).train()(torch.randn(1, 5, 1, 1)).shape == (1, 128)
    images = torch.rand(2, 3, 4, 7)
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        features = MLP(3, 4, 7)(images.contiguous(memory_format=layout))
        torch.manual_seed(0)
        vectors = MLP(84, 1, 1)(images.reshape(2, 84, 1, 1))
        assert torch.allclose(features, vectors, atol=1e-6)
