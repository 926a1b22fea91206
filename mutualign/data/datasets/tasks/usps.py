"""MNIST -> USPS and back: two collections of handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mutualign.data.datasets.published import MNIST_FILES, USPS_FILES
from mutualign.data.datasets.registry import register_task

if TYPE_CHECKING:
    from mutualign.data.task import Task


@register_task(
    "mnist-usps", "MNIST -> USPS: 7,291 and 2,007 digits of envelopes, enlarged to 28x28", (*MNIST_FILES, *USPS_FILES)
)
def mnist_usps(folder: Path) -> Task:
    """MNIST as it is, and USPS enlarged to its size."""
    from mutualign.data.datasets.usps import load_mnist_usps

    return load_mnist_usps(folder)


@register_task("usps-mnist", "USPS -> MNIST: the reverse, from few digits to many", (*MNIST_FILES, *USPS_FILES))
def usps_mnist(folder: Path) -> Task:
    """USPS enlarged to the size of MNIST, and MNIST as it is."""
    from mutualign.data.datasets.usps import load_usps_mnist

    return load_usps_mnist(folder)
