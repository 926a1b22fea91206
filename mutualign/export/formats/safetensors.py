"""safetensors: the weights, and a header from which mutualign rebuilds the classifier."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mutualign.errors import MutualignError
from mutualign.export.formats.base import Format, OpenedFile, read_class_names, register_format

if TYPE_CHECKING:
    from torch import Tensor

    from mutualign.data.types import ImageShape
    from mutualign.export.network import ExportedNetwork


@register_format("safetensors")
class Safetensors(Format):
    """The trained weights alone, equal bit for bit, for use with mutualign."""

    suffix = ".safetensors"
    tolerance = 0.0
    usage = """\
import torch
from mutualign.export.formats.safetensors import load_exported
model, names = load_exported({path!r})
probabilities = model(torch.as_tensor(pixels))"""

    def encode(self, network: ExportedNetwork, metadata: Mapping[str, str]) -> bytes:
        from mutualign.io.tensors import pack

        return pack(network.classifier.state_dict(), {"format": "pt", **metadata})

    def decode(self, content: bytes) -> OpenedFile:
        from safetensors.torch import load

        length = int.from_bytes(content[:8], "little")
        return _rebuild(load(content), json.loads(content[8 : 8 + length])["__metadata__"])


def load_exported(path: str | Path) -> OpenedFile:
    """Open an exported file: a function from pixels to class probabilities, and the class names.

    The function takes uint8 or float32 tensors [n, height, width, channels] and returns float32 [n, classes].
    Of a classifier of photos, the file names the frozen network, whose weights come from its installed package, from
    timm's hub, or from the file that the run was trained with.
    Raises MutualignError if the file is missing or damaged, or does not hold an exported classifier, and if the frozen
    network's weights are not installed or not those that the classifier was trained with.
    """
    from mutualign.io.tensors import unpack

    try:
        return _rebuild(*unpack(Path(path)))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:  # torch raises RuntimeError
        raise MutualignError(
            f"{path}: not a readable exported classifier: {error}\n"
            "  hint:    write it again with mutualign export RUN --format safetensors"
        ) from error


def _rebuild(weights: dict[str, Tensor], metadata: Mapping[str, str]) -> OpenedFile:
    """Build the classifier that the metadata describes, and load its weights."""
    import torch

    from mutualign.data.types import ImageShape
    from mutualign.training.setup import restore_classifier

    shape = ImageShape(**json.loads(metadata["image_shape"])).checked()
    names = read_class_names(metadata)
    inputs_shape, inputs = _inputs(shape, metadata.get("frozen_network"))
    classifier = restore_classifier(metadata["backbone"], inputs_shape, len(names), weights)

    def probabilities(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return classifier(inputs(pixels)).softmax(1)  # type: ignore[no-any-return]

    return OpenedFile(probabilities, names)


def _inputs(shape: ImageShape, frozen: str | None) -> tuple[ImageShape, Callable[[Tensor], Tensor]]:
    """Return the shape of what the classifier takes, and how it is computed from pixels."""
    from mutualign.data.features.network import feature_network
    from mutualign.data.types import ImageShape, to_floats
    from mutualign.nn.weights import PRETRAINED, NetworkWeights
    from mutualign.runs.predictor import features_as_trained

    if frozen is None:
        return shape, lambda pixels: to_floats(pixels, shape.channels)
    about = json.loads(frozen)
    name, sha256, features = about["network"], about["sha256"], about["features"]
    pretrained = NetworkWeights(name, about.get("weights", PRETRAINED))
    pretrained.check()
    if sha256 != pretrained.digest:
        raise MutualignError(
            f"the classifier was trained on features of {name} with other weights\n"
            f"  file     SHA-256 {sha256}\n"
            f"  here     SHA-256 {pretrained.digest}\n"
            "  hint:    use the version of mutualign that exported it, or train and export again"
        )
    network = feature_network(pretrained)
    inputs_shape = ImageShape(features, 1, 1).checked()
    return inputs_shape, lambda pixels: to_floats(features_as_trained(network, pixels), features)
