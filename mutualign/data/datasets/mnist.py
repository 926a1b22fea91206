"""MNIST from its four original files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mutualign.data.datasets.idx import read_idx
from mutualign.data.datasets.published import MNIST_FILES
from mutualign.data.fetch.data_files import require
from mutualign.data.types import LabelledImages, UnlabelledImages
from mutualign.errors import MutualignError

DIGIT_NAMES = tuple("0123456789")

# Part of identities: editing these words breaks resume for existing runs.
MNIST_IDENTITY = "MNIST 28x28, 60000 train / 10000 test"


def load_mnist(folder: Path, task: str = "mnist") -> tuple[LabelledImages, LabelledImages]:
    """Load the training and test digits: 60,000 and 10,000 grey images of 28x28, white on black.

    Missing files are downloaded. Raises MutualignError, naming `task`, if files are missing or damaged.
    """
    paths = require(MNIST_FILES, task, folder)
    train_images, train_labels, test_images, test_labels = map(read_idx, paths)
    return _labelled(train_images, train_labels, paths[0]), _labelled(test_images, test_labels, paths[2])


def _labelled(pixels: Tensor, labels: Tensor, path: Path) -> LabelledImages:
    if pixels.ndim != 3 or labels.shape != pixels.shape[:1]:
        raise MutualignError(
            f"{path}: images of shape {tuple(pixels.shape)} do not match labels of shape {tuple(labels.shape)}"
        )
    return LabelledImages(UnlabelledImages(pixels[..., None]), labels.long())
