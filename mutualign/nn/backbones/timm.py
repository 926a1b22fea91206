"""Networks of the timm library as backbones, and loading their weights from a file."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.errors import LIKELY, MutualignError, first_line
from mutualign.io.tensors import unpack
from mutualign.nn.backbones.base import Backbone, register_family
from mutualign.nn.distributed import own_randomness
from mutualign.nn.randomness import separate_draws

TIMM = "timm:"
HUB_FILE = "model.safetensors"  # of a repository of timm's hub; its other formats may contain code
NO_CONNECTION = {"ConnectError", "ConnectTimeout"}  # of httpx or its successors, whichever the hub's client uses

# What networks raise for a size they cannot take: a tensor too small for a kernel, an assertion, a failed reshape.
_REFUSALS = (RuntimeError, ValueError, AssertionError, TypeError, ZeroDivisionError)


@register_family(TIMM)
class TimmBackbone(Backbone):
    """A network of timm (Wightman, github.com/huggingface/pytorch-image-models) without its classifier.

    Its weights are random until `load_backbone_weights` sets them; building downloads nothing. Networks made for one
    image size, such as vision transformers, are built for the size of the images. Colour images are normalised by the
    mean and standard deviation in the network's configuration. The number of features is measured on one image, since
    timm's `num_features` leaves out the head's hidden layer in some networks (MobileNetV3). If processes share a batch,
    batch norm uses the statistics of each process's rows.

    Raises MutualignError if timm is not installed, does not know the network, or the network cannot take the images.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.name = TIMM + name
        timm = _import_timm(self.name)
        _require_model(timm, name)
        self.network = _create(timm, name, channels, height, width, self.name)
        self.config = dict(getattr(self.network, "pretrained_cfg", None) or {})
        colour = channels == 3 and "mean" in self.config and "std" in self.config
        mean, deviation = (self.config["mean"], self.config["std"]) if colour else ((0.0,), (1.0,))
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1))
        self.feature_dim = self._count_features(channels, height, width)

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        with own_randomness(images.device):
            return self.network((images - self.mean) / self.deviation)  # type: ignore[no-any-return]

    def _count_features(self, channels: int, height: int, width: int) -> int:
        """Run one image in evaluation mode, which leaves running statistics and torch's generator unchanged."""
        self.network.eval()
        try:
            with torch.no_grad(), separate_draws():
                features = self.network(torch.zeros(1, channels, height, width))
        except _REFUSALS as error:
            raise _cannot_take(self.name, height, width, self.config, error) from error
        self.network.train()
        if features.dim() != 2:
            raise MutualignError(
                f"backbone {self.name}: its output for an image has shape {tuple(features.shape)}, not [1, features]\n"
                "  hint:    choose another backbone"
            )
        return int(features.shape[1])


def _require_model(timm: ModuleType, name: str) -> None:
    """Raise MutualignError unless timm has a network of this name, naming the nearest."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=LIKELY)
        hint = f'did you mean "{TIMM}{near[0]}"?' if near else "see timm.list_models()"
        raise MutualignError(f'unknown backbone "{TIMM}{name}"; {hint}')


def _create(timm: ModuleType, name: str, channels: int, height: int, width: int, shown: str) -> nn.Module:
    """Create the network without a classifier, for an image size if it is made for one."""
    settings: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    try:
        if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
            try:
                return timm.create_model(name, **settings, img_size=(height, width))  # type: ignore[no-any-return]
            except TypeError:  # it has no such argument
                pass
            except _REFUSALS as error:
                raise _cannot_take(shown, height, width, {}, error) from error
        return timm.create_model(name, **settings)  # type: ignore[no-any-return]
    except _REFUSALS as error:
        raise MutualignError(f"backbone {shown} cannot be made for {channels} channels: {error}") from error


def _cannot_take(name: str, height: int, width: int, config: Mapping[str, Any], error: Exception) -> MutualignError:
    size = config.get("input_size")
    made_for = f"; it is made for {size[1]}x{size[2]}" if size else ""
    return MutualignError(
        f"backbone {name} does not take images of {height}x{width} ({error}){made_for}\n"
        "  hint:    use images of another size, or another backbone"
    )


def trained_side(backbone: str) -> int:
    """Return the side, in pixels, of the images that the weights of `timm:NAME` were trained on."""
    return int(_published_config(backbone).input_size[1])


def hub_file(backbone: str) -> Path:
    """Return the .safetensors file that timm's hub has for `timm:NAME`, fetched once and kept in the hub's own cache.

    A kept file needs no network. Raises MutualignError if the hub has none, or if it is not kept yet and the hub cannot
    be reached.
    """
    repository = _published_config(backbone).hf_hub_id
    if not repository:
        raise MutualignError(
            f"backbone {backbone}: timm's hub has no weights of it\n"
            "  hint:    give --weights FILE.safetensors, or choose another network: timm.list_pretrained()"
        )
    try:
        hub = importlib.import_module("huggingface_hub")
        if isinstance(kept := hub.try_to_load_from_cache(repository, HUB_FILE), str):
            return Path(kept)
        _require_connection(hub, repository)
        return Path(hub.hf_hub_download(repository, HUB_FILE))
    except Exception as error:  # the errors of huggingface_hub, and of the library that connects, have no common type
        raise MutualignError(
            f"backbone {backbone}: its weights cannot be fetched from timm's hub ({repository}): {first_line(error)}\n"
            "  hint:    connect once, and they are kept for later runs; or give --weights FILE.safetensors, which\n"
            "           timm writes: safetensors.torch.save_file(model.state_dict(), FILE)"
        ) from error


def _require_connection(hub: ModuleType, repository: str) -> None:
    """Ask the hub about the file once; raise the client's error if no connection can be made.

    `hf_hub_download` would repeat that for 23 seconds without a network, and for minutes behind a silent firewall. All
    other errors are left to it: it asks again if the hub is busy or slow.
    """
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, HUB_FILE))
    except Exception as error:  # of the library that connects, which differs by version
        if type(error).__name__ in NO_CONNECTION:
            raise


def _published_config(backbone: str) -> Any:
    """Return timm's description of a network's weights. Raises MutualignError if timm does not know the network."""
    timm, name = _import_timm(backbone), backbone.removeprefix(TIMM)
    _require_model(timm, name)
    try:
        config = timm.get_pretrained_cfg(name)
    except _REFUSALS as error:
        raise MutualignError(f"backbone {backbone}: {error}") from error
    if config is None:
        raise MutualignError(f"backbone {backbone}: timm describes no weights of it")
    return config


def load_backbone_weights(backbone: Backbone, path: Path) -> None:
    """Load a timm backbone's weights from a .safetensors file; those of timm's classifier are ignored.

    Raises MutualignError that names the file if it cannot be read, and the differences if it is of another network.
    """
    if not isinstance(backbone, TimmBackbone):
        raise MutualignError(f"backbone weights {path}: for timm backbones only, not for {type(backbone).__name__}")
    try:
        tensors, _ = unpack(path)
    except (OSError, ValueError) as error:
        raise MutualignError(
            f"backbone weights {path}: not a readable .safetensors file: {error}\n"
            "  hint:    write one with timm: safetensors.torch.save_file(model.state_dict(), PATH)"
        ) from error
    classifiers = backbone.config.get("classifier") or ()
    prefixes = tuple(f"{each}." for each in ([classifiers] if isinstance(classifiers, str) else classifiers))
    expected = backbone.network.state_dict()
    # Older files lack the counts of batches, which nothing uses.
    missing = [key for key in expected if key not in tensors and not key.endswith(".num_batches_tracked")]
    unexpected = [key for key in tensors if key not in expected and not key.startswith(prefixes)]
    shared = [key for key in expected if key in tensors]
    reshaped = [
        f"{key} ({tuple(tensors[key].shape)} for {tuple(expected[key].shape)})"
        for key in shared
        if tensors[key].shape != expected[key].shape
    ]
    differences = {"missing": missing, "unexpected": unexpected, "different shape": reshaped}
    if any(differences.values()):
        lines = "\n".join(f"  {_first(keys)}: {what}" for what, keys in differences.items() if keys)
        raise MutualignError(
            f"backbone weights {path}: not those of {backbone.name}\n{lines}\n"
            "  hint:    use the file of this network, or the network of this file"
        )
    backbone.network.load_state_dict({key: tensors[key] for key in shared}, strict=False)


def _first(keys: Collection[str], shown: int = 3) -> str:
    """List the first few keys, and the number of others."""
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(sorted(keys)[:shown]) + more


def _import_timm(backbone: str) -> ModuleType:
    try:
        return importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision for another torch
        raise MutualignError(
            f"backbone {backbone} needs timm, which cannot be imported: {error}\n"
            "  hint:    pip install 'mutualign[timm]'"
        ) from error
