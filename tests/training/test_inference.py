"""Inference against one forward pass per image."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mutualign.data.types import UnlabelledImages
from mutualign.nn.backbones import ManiCNN
from mutualign.nn.backbones.bottleneck import Bottleneck
from mutualign.nn.classifier import Classifier
from mutualign.training.diagnosis import NotFinite
from mutualign.training.distributed import make_fabric
from mutualign.training.inference import KEPT_FEATURES, predict, predict_logits


@pytest.fixture
def fabric():
    return make_fabric("float32", "cpu")


def classifier(channels=3):
    torch.manual_seed(0)
    return Classifier(ManiCNN(channels, 12, 12), 5)


def images(n, channels=3):
    rng = torch.Generator().manual_seed(1)
    return UnlabelledImages(torch.randint(0, 256, (n, 12, 12, channels), dtype=torch.uint8, generator=rng))


@pytest.mark.parametrize(("n", "batch_size", "stored"), [(10, 4, 1), (8, 4, 3), (3, 500, 3), (1, 1, 1)])
def test_logits_are_those_of_one_forward_pass_per_image_in_evaluation_mode(fabric, n, batch_size, stored):
    network, data = classifier().train(), images(n, stored)
    logits = predict_logits(network, data, 3, fabric, batch_size=batch_size)
    network.eval()
    for i in range(n):
        image = (data.pixels[i].double() / 255).float().permute(2, 0, 1).expand(3, 12, 12)
        assert torch.allclose(logits[i], network(image[None])[0], rtol=1e-4, atol=1e-6)
    assert logits.shape == (n, 5)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_network_is_what_it_was(fabric, training):
    network = classifier().train(training)
    predict_logits(network, images(3), 3, fabric)
    assert all(module.training == training for module in network.modules())


def test_torchs_generator_is_left_alone(fabric):
    state = torch.get_rng_state()
    predict_logits(classifier().train(), images(3), 3, fabric)
    assert torch.equal(torch.get_rng_state(), state)


def test_bf16_gives_float32_logits_within_its_rounding(fabric):
    network, data = classifier(), images(6)
    exact = predict_logits(network, data, 3, fabric)
    rounded = predict_logits(network, data, 3, make_fabric("bf16", "cpu"))
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert torch.allclose(rounded, exact, atol=0.05)


def test_each_batch_has_a_key_of_its_own_that_begins_with_the_one_given(fabric):
    @dataclasses.dataclass(frozen=True)
    class Watched(UnlabelledImages):
        keys: list[int] = dataclasses.field(default_factory=list)

        def take(self, indices, key):
            self.keys.append(key)
            return super().take(indices, key)

    data = Watched(images(10).pixels)
    predict_logits(classifier(), data, 3, fabric, key=70, batch_size=4)
    assert data.keys == [70, 71, 72]


def test_logits_and_features_are_those_of_the_two_parts_of_the_network(fabric):
    network, data = classifier(), images(7)
    outputs = predict(network, data, 3, fabric, batch_size=3)
    assert torch.allclose(outputs.logits, predict_logits(network, data, 3, fabric), atol=1e-6)
    pixels = (data.pixels.double() / 255).float().permute(0, 3, 1, 2)
    features = network.eval().features(pixels)
    assert torch.allclose(outputs.features, features, atol=1e-5)
    assert not outputs.features.requires_grad


def test_wide_features_are_narrowed_alike_every_time_and_keep_their_angles(fabric):
    network = Classifier(ManiCNN(3, 20, 20), 5)  # 2,304 features
    data = UnlabelledImages(torch.randint(0, 256, (12, 20, 20, 3), dtype=torch.uint8))
    found = predict(network, data, 3, fabric).features
    assert found.shape == (12, KEPT_FEATURES)
    assert torch.equal(found, predict(network, data, 3, fabric).features)
    whole = network.eval().features((data.pixels / 255).permute(0, 3, 1, 2)).detach()
    whole, found = (torch.nn.functional.normalize(rows, dim=1) for rows in (whole, found))
    assert (whole @ whole.T - found @ found.T).abs().max().item() < 0.25


def test_inputs_that_are_vectors_are_returned_whole_and_of_many_images_in_fewer_dimensions(fabric, monkeypatch):
    network = Classifier(Bottleneck(300, 2, 1), 5)
    data = UnlabelledImages(torch.randn(9, 2, 1, 300))
    whole = predict(network, data, 300, fabric, narrow=False).vectors
    assert torch.equal(whole, data.pixels[:, 0, 0])
    monkeypatch.setattr("mutualign.training.inference.MANY", 8)
    narrowed = predict(network, data, 300, fabric, narrow=False).vectors
    assert narrowed.shape == (9, KEPT_FEATURES)
    whole, narrowed = (torch.nn.functional.normalize(rows, dim=1) for rows in (whole, narrowed))
    assert (whole @ whole.T - narrowed @ narrowed.T).abs().max().item() < 0.25


def test_a_view_is_seeded_by_the_key_and_leaves_torchs_generator_alone(fabric):
    network, data = classifier(), images(6)
    state = torch.get_rng_state()

    def noisy(batch):
        return batch + torch.randn_like(batch)

    first, again, other = (predict_logits(network, data, 3, fabric, key, noisy, batch_size=4) for key in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, predict_logits(network, data, 3, fabric))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_an_error_and_no_class(fabric, bad):
    network, data = classifier(1), images(5, 1)
    values = data.pixels.float() / 255
    values[3, 0, 0, 0] = bad
    data = UnlabelledImages(values)
    with pytest.raises(NotFinite, match=r"logits are not finite for 1 of 5 images, first number 3\n  hint: "):
        predict_logits(network, data, 1, fabric, batch_size=2)
    with pytest.raises(NotFinite, match=r"features are not finite for 1 of 5 images"):
        predict(network, data, 1, fabric)
