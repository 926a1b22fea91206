"""MNIST from its four original files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mutualign.data.datasets.idx import read_idx
from mutualign.data.fetch.data_files import DataFile, require
from mutualign.data.types import LabelledImages, UnlabelledImages
from mutualign.errors import MutualignError

_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
DIGIT_NAMES = tuple("0123456789")

# Part of identities: editing these words breaks resume for existing runs.
MNIST_IDENTITY = "MNIST 28x28, 60000 train / 10000 test"

_SHA256 = {  # of the gzipped file, and of its content
    "train-images-idx3-ubyte": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


def _file(name: str) -> DataFile:
    zipped, plain = _SHA256[name]
    folders = ("MNIST/raw", "mnist", ".")  # the first is torchvision's
    return DataFile(
        accepted={f"{folder}/{name}.gz": zipped for folder in folders}
        | {f"{folder}/{name}": plain for folder in folders},
        mirrors=tuple(f"{mirror}{name}.gz" for mirror in _MIRRORS),
    )


MNIST_FILES = tuple(map(_file, _SHA256))


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
