"""USPS from its two original files, and the tasks between MNIST and USPS."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mutualign.data.datasets.mnist import DIGIT_NAMES, MNIST_IDENTITY, load_mnist
from mutualign.data.datasets.published import MNIST_FILES, USPS_FILES
from mutualign.data.fetch.data_files import require
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError

SIDE = 16  # pixels
ENLARGED = 28  # the side of MNIST's images
MAX_BYTES = 64 << 20  # of one file, uncompressed; the larger one has 14 MB

# Part of identities: editing these words breaks resume for existing runs.
USPS_IDENTITY = "USPS 16x16 enlarged to 28x28 bilinear, 7291 train / 2007 test"


def load_mnist_usps(folder: Path) -> Task:
    """MNIST as it is, and USPS enlarged to its size."""
    (train, test), (target_train, target_test) = _load_both(folder, "mnist-usps")
    identity = f"{MNIST_IDENTITY}; target {USPS_IDENTITY}"
    return Task("mnist-usps", identity, DIGIT_NAMES, train, test, _target(target_train), _target(target_test))


def load_usps_mnist(folder: Path) -> Task:
    """USPS enlarged to the size of MNIST, and MNIST as it is."""
    (target_train, target_test), (train, test) = _load_both(folder, "usps-mnist")
    identity = f"{USPS_IDENTITY}; target {MNIST_IDENTITY}"
    return Task("usps-mnist", identity, DIGIT_NAMES, train, test, _target(target_train), _target(target_test))


def load_usps(folder: Path, task: str = "usps") -> tuple[LabelledImages, LabelledImages]:
    """Load the training and test digits: 7,291 and 2,007 grey images, white on black, enlarged to 28x28.

    A digit of USPS fills its frame, one of MNIST a box of 20x20 within 28x28. The frames are brought to one size, as in
    the literature, and the difference in scale is left to the method. Missing files are downloaded. Raises
    MutualignError, naming `task`, if files are missing or damaged.
    """
    train, test = (_read(path) for path in require(USPS_FILES, task, folder))
    return train, test


def parse_usps(content: bytes) -> tuple[Float[Tensor, "n 16 16"], Int64[Tensor, " n"]]:
    """Parse lines of a label and 256 grey values from -1, black, to 1, white.

    Raises MutualignError if the content has another form.
    """
    if not content.strip():
        raise MutualignError("not a file of USPS: it is empty")
    try:
        table = torch.from_numpy(np.loadtxt(io.BytesIO(content), np.float32, comments=None, ndmin=2, encoding="ascii"))
    except (ValueError, OverflowError) as error:  # also UnicodeDecodeError
        raise MutualignError(f"not a file of USPS: {error}") from error
    if table.shape[1] != 1 + SIDE * SIDE:
        raise MutualignError(f"not a file of USPS: lines of {table.shape[1]} numbers, expected 257")
    labels, values = table[:, 0], table[:, 1:]
    if not (labels == labels.round()).all() or labels.min() < 0 or labels.max() >= len(DIGIT_NAMES):
        raise MutualignError("not a file of USPS: a label is not a digit from 0 to 9")
    if not (values.abs() <= 1).all():  # also false for nan
        raise MutualignError("not a file of USPS: a grey value is not in [-1, 1]")
    return values.reshape(-1, SIDE, SIDE), labels.long()


def enlarge(values: Float[Tensor, "n 16 16"]) -> UnlabelledImages:
    """Enlarge images with values in [-1, 1] to 28x28, bilinear, as bytes."""
    large = F.interpolate(values[:, None], size=(ENLARGED, ENLARGED), mode="bilinear")
    pixels = ((large + 1) * 127.5).round().to(torch.uint8)
    return UnlabelledImages(pixels.permute(0, 2, 3, 1).contiguous())


def _load_both(
    folder: Path, task: str
) -> tuple[tuple[LabelledImages, LabelledImages], tuple[LabelledImages, LabelledImages]]:
    """Load MNIST and USPS after asking for all files, so that one message names everything that is missing."""
    require((*MNIST_FILES, *USPS_FILES), task, folder)
    return load_mnist(folder, task), load_usps(folder, task)


def _target(digits: LabelledImages) -> TargetDataset:
    return TargetDataset(digits.images, digits.labels)


def _read(path: Path) -> LabelledImages:
    try:
        with gzip.open(path) as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MutualignError(f"{path}: cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise MutualignError(f"{path}: holds more than {MAX_BYTES >> 20} MiB; not a file of USPS")
    try:
        values, labels = parse_usps(content)
    except MutualignError as error:
        raise MutualignError(f"{path}: {error}") from error
    return LabelledImages(enlarge(values), labels)
