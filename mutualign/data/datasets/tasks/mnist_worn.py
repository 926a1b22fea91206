"""MNIST -> MNIST eroded, blurred and inverted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mutualign.data.datasets.published import MNIST_FILES
from mutualign.data.datasets.registry import register_task

if TYPE_CHECKING:
    from mutualign.data.task import Task


@register_task("mnist-worn", "MNIST -> MNIST eroded, blurred and inverted", MNIST_FILES)
def worn(folder: Path) -> Task:
    """MNIST, and the same images worn."""
    from mutualign.data.datasets.mnist_worn import load_worn

    return load_worn(folder)
