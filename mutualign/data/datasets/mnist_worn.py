"""MNIST -> MNIST eroded, blurred and inverted."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from mutualign.data.datasets.mnist import DIGIT_NAMES, MNIST_IDENTITY, load_mnist
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages

CHUNK = 5000  # images at a time: bounds the size of the floats


def load_worn(folder: Path) -> Task:
    """MNIST, and the same images eroded, blurred and inverted."""
    train, test = load_mnist(folder, "mnist-worn")
    return Task(
        "mnist-worn",
        f"{MNIST_IDENTITY}; target the same images eroded (minimum of 2x2 pixels), blurred (mean of 3x3, zeros "
        "outside) and inverted (255 - value)",
        DIGIT_NAMES,
        train,
        test,
        worn(train),
        worn(test),
    )


def worn(digits: LabelledImages) -> TargetDataset:
    """Erode, blur and invert grey images: thin, soft strokes, black on white."""
    chunks = torch.split(digits.images.pixels, CHUNK)
    return TargetDataset(UnlabelledImages(torch.cat([_wear(chunk) for chunk in chunks])), digits.labels)


def _wear(pixels: UInt8[Tensor, "n height width 1"]) -> UInt8[Tensor, "n height width 1"]:
    """255 less the mean of 3x3 (zeros outside) of the minimum of 2x2 pixels (below and to the right)."""
    grey = pixels.permute(0, 3, 1, 2).float()
    eroded = -F.max_pool2d(-F.pad(grey, (0, 1, 0, 1)), kernel_size=2, stride=1)
    blurred = F.avg_pool2d(eroded, kernel_size=3, stride=1, padding=1)
    return (255 - blurred).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
