"""The pretrained network as a function from pixels to features: folded, in torch, and in ONNX Runtime."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch

from mutualign.data.features import network as networks
from mutualign.data.features.arrays import features_of
from mutualign.data.features.network import FromPixels, OnnxFeatures, TorchFeatures, feature_network, to_onnx
from mutualign.nn.weights import NetworkWeights

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return NetworkWeights(NAME).load()


def test_features_in_torch_and_in_onnx_runtime_are_those_of_the_network(lite0, capfd):
    before = {name: tensor.clone() for name, tensor in lite0.state_dict().items()}
    onnx = OnnxFeatures(to_onnx(lite0, 224))
    assert capfd.readouterr() == ("", "")
    for count in (1, 3):
        pixels = torch.randint(0, 256, (count, 224, 224, 3), dtype=torch.uint8)
        with torch.no_grad():
            expected = lite0(pixels.permute(0, 3, 1, 2).float() / 255)
        for compute in (FromPixels(lite0), TorchFeatures(lite0), onnx):
            torch.testing.assert_close(compute(pixels), expected, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in lite0.state_dict().items())  # folding copies


def test_the_graph_is_exported_once_and_torch_computes_where_onnx_runtime_is_missing(lite0, monkeypatch):
    exports, used = [], []
    monkeypatch.setattr(NetworkWeights, "load", lambda chosen: lite0)
    monkeypatch.setattr(networks, "to_onnx", lambda network, side: exports.append(network) or b"a graph")
    monkeypatch.setattr(networks, "OnnxFeatures", lambda model: used.append(model) or Mock(features=1280))
    build = feature_network.__wrapped__
    build(NetworkWeights(NAME))
    build(NetworkWeights(NAME))
    assert (len(exports), used) == (1, [b"a graph"] * 2)
    monkeypatch.setattr(networks, "has_onnx", lambda: False)
    assert isinstance(build(NetworkWeights(NAME)), TorchFeatures)
    assert len(used) == 2


@pytest.mark.parametrize("channels", [2, 4])
def test_arrays_with_transparency_are_refused(channels):
    with pytest.raises(ValueError, match=rf"images of {channels} channels(.|\n)*hint:    leave out transparency"):
        features_of(torch.zeros(2, 20, 20, channels, dtype=torch.uint8), NetworkWeights(NAME))


def test_features_of_arrays_are_those_of_the_images_at_the_size_of_the_network(lite0, monkeypatch):
    compute = TorchFeatures(lite0)
    monkeypatch.setattr("mutualign.data.features.arrays.feature_network", lambda name: compute)
    grey = torch.randint(0, 256, (2, 224, 224, 1), dtype=torch.uint8)
    found = features_of(grey, NetworkWeights(NAME))
    assert found.shape == (2, 1, 1, 1280)
    torch.testing.assert_close(found[:, 0, 0], compute(grey.expand(-1, -1, -1, 3).contiguous()), atol=1e-4, rtol=1e-4)
    wide = torch.nn.functional.pad(grey, (0, 0, 30, 41))  # of images that are no squares, the middle counts
    torch.testing.assert_close(features_of(wide[:, :, :-11], NetworkWeights(NAME)), found)
