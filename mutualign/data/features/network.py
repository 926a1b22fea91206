"""A frozen network as a function from pixels to features: ONNX Runtime if it is installed, torch otherwise."""

from __future__ import annotations

import copy
import functools
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mutualign.data.cache import cached
from mutualign.nn.backbones import Backbone
from mutualign.nn.backbones.efficientnet_lite import ConvNorm
from mutualign.nn.exporters import has_onnx, quiet_exporters
from mutualign.nn.weights import NetworkWeights

GRAPH = 1  # raised when `FromPixels` computes something else

Pictures = UInt8[Tensor, "n side side 3"]


@runtime_checkable
class FeatureNetwork(Protocol):
    """Pixels to features, callable from several threads at once."""

    features: int

    def __call__(self, pixels: Pictures) -> Float32[Tensor, "n features"]: ...


class FromPixels(nn.Module):
    """A copy of a network for inference: takes pixels as they are stored, with batch norm folded into convolutions."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        for part in self.network.modules():
            if isinstance(part, ConvNorm):
                part.conv, part.norm = fuse_conv_bn_eval(part.conv, part.norm), nn.Identity()  # type: ignore[assignment]

    def forward(self, pixels: Pictures) -> Float32[Tensor, "n features"]:
        return self.network(pixels.permute(0, 3, 1, 2).float() / 255)  # type: ignore[no-any-return]


class TorchFeatures:
    """The network in eager torch: no further packages, several times slower than ONNX Runtime on a CPU."""

    def __init__(self, network: Backbone) -> None:
        self.features = network.feature_dim
        self.network = FromPixels(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, pixels: Pictures) -> Float32[Tensor, "n features"]:
        return self.network(pixels)  # type: ignore[no-any-return]


class OnnxFeatures:
    """The network in ONNX Runtime, on one thread per call; equal to torch up to about 1e-5."""

    def __init__(self, model: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # Threads share nothing when each computes its own photos: two of them are twice as fast as one.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.features = int(self.session.get_outputs()[0].shape[1])

    def __call__(self, pixels: Pictures) -> Float32[Tensor, "n features"]:
        return torch.from_numpy(self.session.run(None, {"pixels": pixels.numpy()})[0])


def to_onnx(network: Backbone, side: int) -> bytes:
    """Export a network, from pixels to features, for any number of square pictures. Takes about 5 seconds."""
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    shapes = {"pixels": {0: torch.export.Dim("n")}}
    model = FromPixels(network).eval()
    with quiet_exporters():
        program = torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model_proto.SerializeToString()  # type: ignore[no-any-return]


@functools.cache
def feature_network(pretrained: NetworkWeights) -> FeatureNetwork:
    """Return the fastest way to compute a pretrained network's features here; its ONNX graph is kept in the cache.

    Raises MutualignError if the network's weights are missing.
    """
    network = pretrained.load()
    if not has_onnx():
        return TorchFeatures(network)

    def export() -> dict[str, Tensor]:
        return {"onnx": torch.frombuffer(bytearray(to_onnx(network, pretrained.side)), dtype=torch.uint8)}

    name, version = pretrained.network.replace(":", "-"), torch.__version__.split("+")[0]
    model = cached(f"{name}-{pretrained.digest[:16]}-torch{version}-v{GRAPH}", export)
    return OnnxFeatures(model["onnx"].numpy().tobytes())
