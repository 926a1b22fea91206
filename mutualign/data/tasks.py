"""Tasks: a labelled source, an unlabelled target, and sealed labels to evaluate on; by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mutualign.data import mnistm
from mutualign.data.digits import load_digits
from mutualign.data.download import DataFile
from mutualign.data.images import ImageShape, LabelledImages, SealedImages, UnlabelledImages
from mutualign.data.mnist import MNIST_FILES, load_mnist
from mutualign.data.photos import BSDS500_FILES
from mutualign.errors import MutualignError, nearest

DIGIT_NAMES = tuple("0123456789")


@dataclass(frozen=True)
class Task:
    """Everything an experiment reads. Whatever is called `target_` keeps its labels sealed."""

    name: str
    identity: str  # what exactly the images are, in words that allow making them again
    class_names: tuple[str, ...]
    source_train: LabelledImages
    source_test: LabelledImages
    target_train: SealedImages
    target_test: SealedImages

    def __post_init__(self) -> None:
        sizes = {images.pixels.shape[1:3] for images in self._images()}
        if len(sizes) != 1:
            raise MutualignError(f"task {self.name}: images of different sizes: {sorted(map(tuple, sizes))}")
        for part, images in zip(
            ("source train", "source test", "target train", "target test"), self._images(), strict=True
        ):
            if len(images) == 0:
                raise MutualignError(f"task {self.name}: no {part} images")

    @property
    def shape(self) -> ImageShape:
        """Height and width are those of every image; with grey and colour images mixed, grey ones become colour."""
        sample = [images.take(torch.tensor([0]), 0) for images in self._images()]
        return ImageShape(max(pixels.shape[3] for pixels in sample), *sample[0].shape[1:3])

    def _images(self) -> Sequence[UnlabelledImages]:
        return (self.source_train.images, self.source_test.images, self.target_train.images, self.target_test.images)


@dataclass(frozen=True)
class TaskEntry:
    """A line of the list of tasks: what it is, which files it needs, how it is loaded from a data folder."""

    description: str
    files: tuple[DataFile, ...]
    load: Callable[[Path], Task]


def _digits(folder: Path) -> Task:
    return Task(
        "digits",
        "scikit-learn digits 8x8 enlarged to 20x20 bicubic and centred in 28x28, 1437 train / 360 test; target |patch - digit| over "
        "scikit-learn's two photos, left halves for train, right halves for test, one frozen background an image",
        DIGIT_NAMES,
        *load_digits(),
    )


def _mnistm_frozen(folder: Path) -> Task:
    train, test = load_mnist(folder, "mnist-mnistm")
    return Task(
        "mnist-mnistm",
        "MNIST 28x28, 60000 train / 10000 test; target MNIST-M, variant frozen: |patch - digit|, one BSDS500 background "
        "an image, seed 0, train over BSDS500 train (200 photos), test over BSDS500 test (200 photos)",
        DIGIT_NAMES,
        train,
        test,
        *mnistm.frozen(train, test, folder, "mnist-mnistm"),
    )


def _mnistm_resampled(folder: Path) -> Task:
    train, test = load_mnist(folder, "mnist-mnistm-resampled")
    return Task(
        "mnist-mnistm-resampled",
        "MNIST 28x28, 60000 train / 10000 test; target MNIST-M, variant resampled: |patch - digit|, a new background at "
        "every access, training and evaluation alike, from all 500 photos of BSDS500",
        DIGIT_NAMES,
        train,
        test,
        *mnistm.resampled(train, test, folder, "mnist-mnistm-resampled"),
    )


def _bsds500(*splits: str) -> tuple[DataFile, ...]:
    return tuple(file for split in splits for file in BSDS500_FILES[split])


TASKS: dict[str, TaskEntry] = {
    "digits": TaskEntry("small digits onto photo patches; embedded, needs no files", (), _digits),
    "mnist-mnistm": TaskEntry(
        "MNIST -> MNIST-M, variant frozen: one background an image, train and test photos disjoint",
        (*MNIST_FILES, *_bsds500("train", "test")),
        _mnistm_frozen,
    ),
    "mnist-mnistm-resampled": TaskEntry(
        "MNIST -> MNIST-M, variant resampled: a new background at every access, as in the published code",
        (*MNIST_FILES, *_bsds500("train", "val", "test")),
        _mnistm_resampled,
    ),
}


def find_task(name: str) -> TaskEntry:
    """The entry of a task, or an error that names the nearest match."""
    if name not in TASKS:
        raise MutualignError(f'unknown task "{name}"; {nearest(name, TASKS)}')
    return TASKS[name]
