"""MNIST -> MNIST-M in the variants frozen, resampled and imbalanced, and MNIST-M -> MNIST."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mutualign.data.datasets import mnistm
from mutualign.data.datasets.mnist import DIGIT_NAMES, MNIST_IDENTITY, load_mnist
from mutualign.data.datasets.published import FROZEN_FILES, RESAMPLED_FILES
from mutualign.data.fetch.data_files import DataFile, require
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset

RARE_CLASSES, KEPT = range(5, 10), 5  # of the rare classes every fifth image is kept

# Part of identities: editing these words breaks resume for existing runs.
_FROZEN = (
    "MNIST-M, variant frozen: |patch - digit|, one BSDS500 background an image, seed 0, train over BSDS500 train "
    "(200 photos), test over BSDS500 test (200 photos)"
)


def load_frozen(folder: Path) -> Task:
    """MNIST, and its images blended once with patches of photos."""
    name = "mnist-mnistm"
    train, test = _load_digits(name, FROZEN_FILES, folder)
    target = mnistm.frozen(train, test, folder, name)
    return Task(name, f"{MNIST_IDENTITY}; target {_FROZEN}", DIGIT_NAMES, train, test, *target)


def load_resampled(folder: Path) -> Task:
    """MNIST, and its images blended with new patches of photos at every access."""
    name = "mnist-mnistm-resampled"
    train, test = _load_digits(name, RESAMPLED_FILES, folder)
    return Task(
        name,
        f"{MNIST_IDENTITY}; target MNIST-M, variant resampled: |patch - digit|, a new background at every access, "
        "training and evaluation alike, from all 500 photos of BSDS500",
        DIGIT_NAMES,
        train,
        test,
        *mnistm.resampled(train, test, folder, name),
    )


def load_imbalanced(folder: Path) -> Task:
    """MNIST, and a target whose classes 5 to 9 are rare."""
    name = "mnist-mnistm-imbalanced"
    train, test = _load_digits(name, FROZEN_FILES, folder)
    target_train, target_test = mnistm.frozen(train, test, folder, name)
    return Task(
        name,
        f"{MNIST_IDENTITY}; target MNIST-M, variant frozen as in mnist-mnistm, of whose classes 5 to 9 every fifth "
        "image is kept, in the order of the file, in train and test",
        DIGIT_NAMES,
        train,
        test,
        imbalanced(target_train, train.labels),
        imbalanced(target_test, test.labels),
    )


def load_reverse(folder: Path) -> Task:
    """The images of mnist-mnistm with source and target exchanged."""
    name = "mnistm-mnist"
    train, test = _load_digits(name, FROZEN_FILES, folder)
    colour_train, colour_test = mnistm.frozen(train, test, folder, name)
    return Task(
        name,
        f"source {_FROZEN}; target {MNIST_IDENTITY}",
        DIGIT_NAMES,
        LabelledImages(colour_train.images, train.labels),
        LabelledImages(colour_test.images, test.labels),
        TargetDataset(train.images, train.labels),
        TargetDataset(test.images, test.labels),
    )


def imbalanced(images: TargetDataset, labels: Tensor) -> TargetDataset:
    """Keep every fifth image of each class from 5 to 9, in the order of the file, and all images of the others."""
    keep = torch.ones(len(labels), dtype=torch.bool)
    for rare in RARE_CLASSES:
        rows = torch.nonzero(labels == rare)[:, 0]
        keep[rows] = torch.arange(len(rows)) % KEPT == 0
    return images.subset(keep.nonzero().flatten())


def _load_digits(task: str, files: tuple[DataFile, ...], folder: Path) -> tuple[LabelledImages, LabelledImages]:
    """Load MNIST after asking for all files of the task, so that one message names everything that is missing."""
    require(files, task, folder)
    return load_mnist(folder, task)
