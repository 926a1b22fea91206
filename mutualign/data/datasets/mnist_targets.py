"""Other targets made from the real files: MNIST eroded, blurred and inverted; and a target with rare classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages

RARE_CLASSES, KEPT = range(5, 10), 5  # of the rare classes every fifth image is kept


def as_target(images: LabelledImages) -> TargetDataset:
    """Labelled images as a target: the labels are put away until evaluation."""
    return TargetDataset(images.images, images.labels)


def worn(digits: LabelledImages) -> TargetDataset:
    """Grey images, each eroded, blurred and inverted: thin, soft, black on white."""
    chunks = torch.split(digits.images.pixels, 5000)  # bounds the size of the floats
    return TargetDataset(UnlabelledImages(torch.cat([_wear(chunk) for chunk in chunks])), digits.labels)


def _wear(pixels: UInt8[Tensor, "n height width 1"]) -> UInt8[Tensor, "n height width 1"]:
    """The least of 2x2 pixels (below and to the right), the mean of 3x3 (zeros outside), 255 less that."""
    grey = pixels.permute(0, 3, 1, 2).float()
    eroded = -F.max_pool2d(-F.pad(grey, (0, 1, 0, 1)), kernel_size=2, stride=1)
    blurred = F.avg_pool2d(eroded, kernel_size=3, stride=1, padding=1)
    return (255 - blurred).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def imbalanced(images: TargetDataset, labels: Tensor) -> TargetDataset:
    """Classes 5 to 9 a fifth as frequent: of each, every fifth image in the order of the file; all others stay."""
    keep = torch.ones(len(labels), dtype=torch.bool)
    for rare in RARE_CLASSES:
        rows = torch.nonzero(labels == rare)[:, 0]
        keep[rows] = torch.arange(len(rows)) % KEPT == 0
    return TargetDataset(UnlabelledImages(images.images.pixels[keep]), labels[keep])
