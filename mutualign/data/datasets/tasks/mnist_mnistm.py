"""MNIST -> MNIST-M in the variants frozen, resampled and imbalanced, and MNIST-M -> MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mutualign.data.datasets.published import FROZEN_FILES, RESAMPLED_FILES
from mutualign.data.datasets.registry import register_task

if TYPE_CHECKING:
    from mutualign.data.task import Task


@register_task(
    "mnist-mnistm",
    "MNIST -> MNIST-M, variant frozen: one background per image, train and test photos disjoint",
    FROZEN_FILES,
)
def frozen(folder: Path) -> Task:
    """MNIST, and its images blended once with patches of photos."""
    from mutualign.data.datasets.mnist_mnistm import load_frozen

    return load_frozen(folder)


@register_task(
    "mnist-mnistm-resampled",
    "MNIST -> MNIST-M, variant resampled: a new background at every access, as in the published code",
    RESAMPLED_FILES,
)
def resampled(folder: Path) -> Task:
    """MNIST, and its images blended with new patches of photos at every access."""
    from mutualign.data.datasets.mnist_mnistm import load_resampled

    return load_resampled(folder)


@register_task(
    "mnist-mnistm-imbalanced",
    "MNIST -> MNIST-M (frozen) with classes 5 to 9 a fifth as frequent",
    FROZEN_FILES,
)
def imbalanced(folder: Path) -> Task:
    """MNIST, and a target whose classes 5 to 9 are rare."""
    from mutualign.data.datasets.mnist_mnistm import load_imbalanced

    return load_imbalanced(folder)


@register_task(
    "mnistm-mnist",
    "MNIST-M (frozen) -> MNIST: the reverse, where source only is already good",
    FROZEN_FILES,
)
def reverse(folder: Path) -> Task:
    """The images of mnist-mnistm with source and target exchanged."""
    from mutualign.data.datasets.mnist_mnistm import load_reverse

    return load_reverse(folder)
