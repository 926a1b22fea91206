"""MNIST -> MNIST-M, variant original: the 32x32 release of its authors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mutualign.data.datasets.published import MNIST_FILES
from mutualign.data.datasets.registry import register_task

if TYPE_CHECKING:
    from mutualign.data.task import Task


@register_task(
    "mnist-mnistm-original",
    "MNIST -> MNIST-M, variant original: the 32x32 release (mnist_m.tar.gz or mnist_m/, which has no mirror)",
    MNIST_FILES,
    unpublished=("mnist_m", "mnist_m.tar.gz"),
)
def original(folder: Path) -> Task:
    """MNIST with a black border, and the release."""
    from mutualign.data.datasets.mnistm_original import load_task

    return load_task(folder)
