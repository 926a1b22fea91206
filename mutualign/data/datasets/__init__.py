"""Tasks: a labelled source, an unlabelled target, and sealed labels to evaluate on; by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch.nn.functional as F

from mutualign.data.datasets import mnistm
from mutualign.data.datasets.bsds500 import BSDS500_FILES
from mutualign.data.datasets.digits import load_digits
from mutualign.data.datasets.mnist import MNIST_FILES, load_mnist
from mutualign.data.datasets.mnist_targets import as_target, imbalanced, worn
from mutualign.data.datasets.mnistm_original import SIZE, load_original
from mutualign.data.fetch.data_files import DataFile, require
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, UnlabelledImages, spread
from mutualign.errors import MutualignError, nearest

DIGIT_NAMES = tuple("0123456789")

# Parts of identities. A run goes on only under the very words that it began with.
_MNIST = "MNIST 28x28, 60000 train / 10000 test"
_FROZEN = (
    "MNIST-M, variant frozen: |patch - digit|, one BSDS500 background an image, seed 0, train over BSDS500 train "
    "(200 photos), test over BSDS500 test (200 photos)"
)


@dataclass(frozen=True)
class DatasetEntry:
    """A line of the list of tasks: what it is, which files it needs, how it is loaded from a data folder."""

    description: str
    files: tuple[DataFile, ...]
    load: Callable[[Path], Task]


def _digits(folder: Path) -> Task:
    return Task(
        "digits",
        "scikit-learn digits 8x8 enlarged to 20x20 bicubic and centred in 28x28; 1437 to train, moved by up to 2 "
        "pixels, 360 to test; target |patch - digit| over scikit-learn's two photos below row 140, cut into "
        "ten stripes of 64 columns, train over the first, third, ..., test over the rest, one background an image",
        DIGIT_NAMES,
        *load_digits(),
    )


def _mnistm_frozen(folder: Path) -> Task:
    train, test = _load_digits("mnist-mnistm", folder)
    return Task(
        "mnist-mnistm",
        f"{_MNIST}; target {_FROZEN}",
        DIGIT_NAMES,
        train,
        test,
        *mnistm.frozen(train, test, folder, "mnist-mnistm"),
    )


def _mnistm_resampled(folder: Path) -> Task:
    train, test = _load_digits("mnist-mnistm-resampled", folder)
    return Task(
        "mnist-mnistm-resampled",
        f"{_MNIST}; target MNIST-M, variant resampled: |patch - digit|, a new background at every access, training and "
        "evaluation alike, from all 500 photos of BSDS500",
        DIGIT_NAMES,
        train,
        test,
        *mnistm.resampled(train, test, folder, "mnist-mnistm-resampled"),
    )


def _mnistm_original(folder: Path) -> Task:
    name = "mnist-mnistm-original"
    target = load_original(folder, name)  # first: it cannot be downloaded, so what it lacks is said at once
    train, test = (_padded(digits, SIZE) for digits in load_mnist(folder, name))
    return Task(
        name,
        f"MNIST 28x28 zero-padded to {SIZE}x{SIZE}, 60000 train / 10000 test; target MNIST-M, variant original: the "
        f"release of {SIZE}x{SIZE} images, not resized, {target.identity}",
        DIGIT_NAMES,
        train,
        test,
        target.train,
        target.test,
    )


def _mnistm_to_mnist(folder: Path) -> Task:
    name = "mnistm-mnist"
    train, test = _load_digits(name, folder)
    colour_train, colour_test = mnistm.frozen(train, test, folder, name)
    return Task(
        name,
        f"source {_FROZEN}; target {_MNIST}",
        DIGIT_NAMES,
        LabelledImages(colour_train.images, train.labels),
        LabelledImages(colour_test.images, test.labels),
        as_target(train),
        as_target(test),
    )


def _worn(folder: Path) -> Task:
    name = "mnist-worn"
    train, test = load_mnist(folder, name)
    return Task(
        name,
        f"{_MNIST}; target the same images eroded (minimum of 2x2 pixels), blurred (mean of 3x3, zeros outside) and "
        "inverted (255 - value)",
        DIGIT_NAMES,
        train,
        test,
        worn(train),
        worn(test),
    )


def _mnistm_imbalanced(folder: Path) -> Task:
    name = "mnist-mnistm-imbalanced"
    train, test = _load_digits(name, folder)
    target_train, target_test = mnistm.frozen(train, test, folder, name)
    return Task(
        name,
        f"{_MNIST}; target MNIST-M, variant frozen as in mnist-mnistm, of whose classes 5 to 9 every fifth image is "
        "kept, in the order of the file, in train and test",
        DIGIT_NAMES,
        train,
        test,
        imbalanced(target_train, train.labels),
        imbalanced(target_test, test.labels),
    )


def _load_digits(task: str, folder: Path) -> tuple[LabelledImages, LabelledImages]:
    """MNIST, after all files of the task were asked for at once, so that one message names all that are missing."""
    require(TASKS[task].files, task, folder)
    return load_mnist(folder, task)


def _padded(digits: LabelledImages, size: int) -> LabelledImages:
    """Square images in the middle of larger black ones; an odd border is one pixel wider below and to the right."""
    border = size - digits.images.pixels.shape[1]
    sides = (border // 2, border - border // 2)
    return LabelledImages(UnlabelledImages(F.pad(digits.images.pixels, (0, 0, *sides, *sides))), digits.labels)


def _bsds500(*splits: str) -> tuple[DataFile, ...]:
    return tuple(file for split in splits for file in BSDS500_FILES[split])


TASKS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry("small digits onto photo patches; embedded, needs no files", (), _digits),
    "mnist-mnistm": DatasetEntry(
        "MNIST -> MNIST-M, variant frozen: one background an image, train and test photos disjoint",
        (*MNIST_FILES, *_bsds500("train", "test")),
        _mnistm_frozen,
    ),
    "mnist-mnistm-resampled": DatasetEntry(
        "MNIST -> MNIST-M, variant resampled: a new background at every access, as in the published code",
        (*MNIST_FILES, *_bsds500("train", "val", "test")),
        _mnistm_resampled,
    ),
    "mnist-mnistm-original": DatasetEntry(
        "MNIST -> MNIST-M, variant original: the 32x32 release (mnist_m.tar.gz or mnist_m/, which has no mirror)",
        MNIST_FILES,
        _mnistm_original,
    ),
    "mnistm-mnist": DatasetEntry(
        "MNIST-M (frozen) -> MNIST: the way back, where source only is already good",
        (*MNIST_FILES, *_bsds500("train", "test")),
        _mnistm_to_mnist,
    ),
    "mnist-worn": DatasetEntry("MNIST -> MNIST eroded, blurred and inverted", MNIST_FILES, _worn),
    "mnist-mnistm-imbalanced": DatasetEntry(
        "MNIST -> MNIST-M (frozen) with classes 5 to 9 a fifth as frequent",
        (*MNIST_FILES, *_bsds500("train", "test")),
        _mnistm_imbalanced,
    ),
}


def find_task(name: str) -> DatasetEntry:
    """The entry of a task, or of a slice of one: `mnist-mnistm@6000` trains on 6,000 images of either domain.

    A slice is spread evenly over the images in their order; test images stay whole. Raises MutualignError, which names
    the nearest match, for an unknown name, and for a slice of no images.
    """
    base, _, size = name.partition("@")
    if base not in TASKS:
        raise MutualignError(f'unknown task "{base}"; {nearest(base, TASKS)}')
    if base == name:
        return TASKS[base]
    if not size.isascii() or not size.isdecimal() or int(size) == 0:
        raise MutualignError(f'task "{name}": after the @ goes a number of images, such as {base}@6000')
    entry = TASKS[base]
    return replace(
        entry,
        description=f"{entry.description}; {size} images to train on",
        load=lambda folder: sliced(entry.load(folder), int(size)),
    )


def sliced(task: Task, size: int) -> Task:
    """The task with at most `size` training images of either domain."""
    source, target = (spread(len(images), size) for images in (task.source_train, task.target_train))
    return replace(
        task,
        name=f"{task.name}@{size}",
        identity=f"{task.identity}; of the training images {size} of either domain, evenly spread",
        source_train=LabelledImages(task.source_train.images.subset(source), task.source_train.labels[source]),
        target_train=task.target_train.subset(target),
    )
