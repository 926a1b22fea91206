"""The published network against a plain torch one with the same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mutualign.errors import MutualignError
from mutualign.nn.backbones import BACKBONES, Classifier, PublishedCNN

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
    backbone = PublishedCNN(*shape).eval()
    images = torch.rand(4, *shape)
    features = backbone(images)
    assert features.shape == (4, backbone.feature_dim)
    assert torch.allclose(features, reference_features(backbone, images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_classifier_is_the_published_network_whatever_the_memory_layout_of_the_images(shape):
    torch.manual_seed(0)
    classifier = Classifier(PublishedCNN(*shape), 10).eval()
    images = torch.rand(3, *shape)
    first, last = classifier.head[0], classifier.head[3]
    features = reference_features(classifier.features, images)
    expected = F.linear(F.relu(F.linear(features, first.weight, first.bias)), last.weight, last.bias)
    for layout in (torch.contiguous_format, torch.channels_last):
        logits = classifier(images.contiguous(memory_format=layout))
        assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_images_of_28x28_have_the_published_6400_features():
    assert PublishedCNN(3, 28, 28).feature_dim == 6400
    assert PublishedCNN(1, 28, 28).feature_dim == 64 * ((28 - 4 - 4) // 2) ** 2


@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (1, 37)])
def test_the_number_of_parameters_is_the_closed_form(channels, classes):
    classifier = Classifier(PublishedCNN(channels, 28, 28), classes)
    convolutions = (25 * channels * 32 + 32) + (25 * 32 * 64 + 64)
    head = (6400 * 32 + 32) + (32 * classes + classes)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == convolutions + head
    assert classifier.classes == classes


def test_dropout_of_a_quarter_comes_after_the_features_in_training_only():
    torch.manual_seed(0)
    backbone = PublishedCNN(3, 28, 28)
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
        PublishedCNN(3, height, width)


def test_the_published_network_is_known_by_name():
    assert BACKBONES["published_cnn"] is PublishedCNN
