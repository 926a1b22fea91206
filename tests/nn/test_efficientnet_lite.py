"""EfficientNet-Lite against timm's with the same weights, and real photos that it recognises."""

from __future__ import annotations

import pytest
import torch

from mutualign.data.folders.image_io import decode_image
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from mutualign.nn.backbones import build_backbone
from mutualign.nn.backbones.efficientnet_lite import VARIANTS, EfficientNetLite, pad_same
from mutualign.nn.pretrained import pretrained_tensors


@pytest.fixture(scope="module")
def published():
    """The ImageNet weights of lite0; the last two tensors are those of its classifier of 1,000 classes."""
    return pretrained_tensors("efficientnet_lite0")


def test_features_and_logits_are_those_of_timm_with_the_published_weights(timm, published):
    own, peer = EfficientNetLite("efficientnet_lite0").eval(), timm.create_model("tf_efficientnet_lite0").eval()
    own.load_in_order(published)
    peer.load_state_dict(dict(zip(peer.state_dict(), published.values(), strict=True)))
    weight, bias = list(published.values())[-2:]
    for size in ((224, 224), (161, 100)):  # odd sizes pad on one side
        images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            features = own(images)
            expected = peer.forward_head(peer.forward_features(2 * images - 1), pre_logits=True)
            torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(features @ weight.T + bias, peer(2 * images - 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_larger_variants_are_those_of_timm_too(timm, name):
    torch.manual_seed(0)
    own, peer = EfficientNetLite(name).eval(), timm.create_model(f"tf_{name}")
    images = torch.rand(2, 3, 75, 64)
    with torch.no_grad():
        peer.train()(torch.randn(4, 3, 64, 64))  # running statistics that are not 0 and 1
        own.load_in_order(peer.eval().state_dict())
        expected = peer.forward_head(peer.forward_features(2 * images - 1), pre_logits=True)
        torch.testing.assert_close(own(images), expected, atol=1e-5, rtol=1e-4)


def test_same_padding_has_the_positions_of_tensorflow_and_puts_an_odd_zero_at_the_end():
    for size in range(5, 12):
        for kernel in (3, 5):
            padded = pad_same(torch.ones(1, 1, size, size), kernel, stride=2)
            positions = -(-size // 2)
            assert (padded.shape[-1] - kernel) // 2 + 1 == positions
            missing = max((positions - 1) * 2 + kernel - size, 0)
            middle = padded[0, 0, :, padded.shape[-1] // 2]
            assert (int((middle == 0).sum()), int((middle == 0).int().argmin())) == (missing, missing // 2)


RECOGNISED = {  # ImageNet numbers that are right for a photo of the folder
    "amazon/back_pack": {414},
    "amazon/mouse": {673},
    "amazon/mug": {504, 968, 899},  # coffee mug, cup, water jug
    "webcam/keyboard": {508, 810, 878},  # computer keyboard, space bar, typewriter keyboard
    "dslr/laptop_computer": {620, 681},  # laptop, notebook
}


def test_real_photos_are_recognised_as_imagenet_classes(published, real_data):
    """More than half of six photos of each kind, within the first three of a thousand classes; chance is 1 percent."""
    network = EfficientNetLite("efficientnet_lite0").eval()
    network.load_in_order(published)
    weight, bias = list(published.values())[-2:]
    for folder, classes in RECOGNISED.items():
        photos = sorted((real_data / "office31" / folder).rglob("*.jpg"))[:6]
        assert len(photos) == 6
        pixels = torch.stack([decode_image(photo.read_bytes(), photo, ImageShape(3, 224, 224)) for photo in photos])
        with torch.no_grad():
            logits = network(pixels.permute(0, 3, 1, 2).float() / 255) @ weight.T + bias
        first = logits.topk(3).indices.tolist()
        assert sum(bool(classes & set(row)) for row in first) > 3, (folder, first)


def test_weights_of_another_network_are_refused_with_the_first_tensor_that_differs(published):
    larger = EfficientNetLite("efficientnet_lite2").state_dict()
    with pytest.raises(ValueError, match=r'"blocks\.3\.depthwise\.conv\.weight" has .* needs \(144, 1, 5, 5\)'):
        EfficientNetLite("efficientnet_lite0").load_in_order(larger)
    with pytest.raises(ValueError, match=r"has the shape .*; efficientnet_lite1 needs"):
        EfficientNetLite("efficientnet_lite1").load_in_order(larger)
    with pytest.raises(ValueError, match="296 tensors; efficientnet_lite2 has 384"):
        EfficientNetLite("efficientnet_lite2").load_in_order(published)


def test_as_a_backbone_it_takes_colour_images_of_32_pixels_and_more():
    for name in VARIANTS:
        network = build_backbone(name, 3, 32, 32)
        assert network.eval()(torch.rand(1, 3, 32, 32)).shape == (1, network.feature_dim)
    for shape in ((1, 64, 64), (3, 31, 64)):
        with pytest.raises(MutualignError, match=r"efficientnet_lite0: images of .*\n  hint:"):
            build_backbone("efficientnet_lite0", *shape)
