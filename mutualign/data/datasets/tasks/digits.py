"""`digits`: a small model of MNIST -> MNIST-M; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mutualign.data.datasets.registry import register_task

if TYPE_CHECKING:
    from mutualign.data.task import Task


@register_task("digits", "small digits onto photo patches; embedded, needs no files")
def digits(folder: Path) -> Task:
    """Digits of scikit-learn, over its photos."""
    from mutualign.data.datasets.digits import load_task

    return load_task(folder)
