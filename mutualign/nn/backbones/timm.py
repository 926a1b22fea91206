"""Networks of the timm library as backbones, and their weights from a file of one's own."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.errors import MutualignError
from mutualign.io.tensors import unpack
from mutualign.nn.backbones.base import Backbone
from mutualign.nn.distributed import own_randomness

# What a network says to a size that it cannot take: a tensor too small for a kernel, an assertion, a failed reshape.
_REFUSALS = (RuntimeError, ValueError, AssertionError, TypeError)


class TimmBackbone(Backbone):
    """A network of timm (Wightman, github.com/huggingface/pytorch-image-models) without its classifier.

    Its weights are random; nothing is fetched. Colour images are normalised by the mean and deviation of the network's
    configuration, others taken as they are. The number of features is that of one black image, run in evaluation mode:
    timm's own `num_features` is the one before the head's hidden layer in some networks (MobileNetV3). Where processes
    share a batch, batch norm takes the statistics of each one's rows, and dropout draws for each apart.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.name = f"timm:{name}"
        timm = _import_timm(self.name)
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=0.5)
            hint = f'did you mean "timm:{near[0]}"?' if near else "timm.list_models() gives those it has"
            raise MutualignError(f'unknown backbone "{self.name}"; {hint}')
        try:
            self.network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels)
        except _REFUSALS as error:
            raise MutualignError(f"backbone {self.name} cannot be made for {channels} channels: {error}") from error
        self.config = dict(getattr(self.network, "pretrained_cfg", None) or {})
        colour = channels == 3 and "mean" in self.config and "std" in self.config
        mean, deviation = (self.config["mean"], self.config["std"]) if colour else ((0.0,), (1.0,))
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1))
        self.feature_dim = self._count_features(channels, height, width)

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        with own_randomness():
            return self.network((images - self.mean) / self.deviation)  # type: ignore[no-any-return]

    def _count_features(self, channels: int, height: int, width: int) -> int:
        """Of one image in evaluation mode: running statistics and torch's generator stay as they are."""
        self.network.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                features = self.network(torch.zeros(1, channels, height, width))
        except _REFUSALS as error:
            size = self.config.get("input_size")
            made_for = f"; it was made for {size[1]}x{size[2]}" if size else ""
            raise MutualignError(
                f"backbone {self.name} does not take images of {height}x{width} ({error}){made_for}\n"
                "  do       give images of another size, or choose another backbone"
            ) from error
        self.network.train()
        if features.dim() != 2:
            raise MutualignError(
                f"backbone {self.name} gives {tuple(features.shape)} for an image, not a vector; choose another"
            )
        return int(features.shape[1])


def load_backbone_weights(backbone: Backbone, path: Path) -> None:
    """Load a timm backbone's weights from a .safetensors file; only those of timm's classifier may stay unused.

    Raises MutualignError that names the file if it cannot be read, and what differs if it is of another network.
    """
    if not isinstance(backbone, TimmBackbone):
        raise MutualignError(f"backbone weights {path}: for backbones of timm only, not for {type(backbone).__name__}")
    try:
        tensors, _ = unpack(path)
    except (OSError, ValueError) as error:
        raise MutualignError(
            f"backbone weights {path}: not a readable .safetensors file: {error}\n"
            "  do       write one where timm has the weights: safetensors.torch.save_file(model.state_dict(), PATH)"
        ) from error
    classifiers = backbone.config.get("classifier") or ()
    prefixes = tuple(f"{each}." for each in ([classifiers] if isinstance(classifiers, str) else classifiers))
    expected = backbone.network.state_dict()
    # Files of old have no counts of batches, which nothing here uses.
    missing = [key for key in expected if key not in tensors and not key.endswith(".num_batches_tracked")]
    unexpected = [key for key in tensors if key not in expected and not key.startswith(prefixes)]
    shared = [key for key in expected if key in tensors]
    reshaped = [
        f"{key} ({tuple(tensors[key].shape)} for {tuple(expected[key].shape)})"
        for key in shared
        if tensors[key].shape != expected[key].shape
    ]
    differences = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    if any(differences.values()):
        lines = "\n".join(f"  {_first(keys)}: {what}" for what, keys in differences.items() if keys)
        raise MutualignError(
            f"backbone weights {path}: not those of {backbone.name}\n{lines}\n"
            "  do       give the file of this network, or choose the network of this file"
        )
    backbone.network.load_state_dict({key: tensors[key] for key in shared}, strict=False)


def _first(keys: Collection[str], shown: int = 3) -> str:
    """The first few keys, and how many more there are."""
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(sorted(keys)[:shown]) + more


def _import_timm(backbone: str) -> ModuleType:
    try:
        return importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision for another torch
        raise MutualignError(
            f"backbone {backbone} needs timm, which cannot be imported: {error}\n"
            "  do       pip install 'mutualign[timm]'"
        ) from error
