"""Types of images: labelled, unlabelled, target; and the batch that a method sees."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Float16, Float32, Int64, UInt8
from torch import Tensor

NO_ROWS = torch.empty(0, dtype=torch.int64)
LARGEST = 1 << 24  # values of an image

# As stored: bytes, or floats that are network input already. A feature vector is an image of one pixel, and several
# views of a photo, as features, are one column of pixels.
Pixels = (
    UInt8[Tensor, "n height width stored"]
    | Float16[Tensor, "n height width stored"]
    | Float32[Tensor, "n height width stored"]
)


@dataclass(frozen=True)
class UnlabelledImages:
    """Images as one tensor, in memory or mapped from a file; a batch is an index lookup."""

    pixels: Pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: Int64[Tensor, " batch"], key: int) -> Pixels:
        """Return the images at `indices`; `key` is the seed of what is random in an access, here nothing."""
        return self.pixels[indices.to(self.pixels.device)]

    def subset(self, rows: Int64[Tensor, " rows"]) -> UnlabelledImages:
        """Return only the images at `rows`."""
        return replace(self, pixels=self.pixels[rows])

    def to(self, device: torch.device) -> UnlabelledImages:
        """Copy the images to a device."""
        return UnlabelledImages(self.pixels.to(device))


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes, 0 .. classes - 1: the source."""

    images: UnlabelledImages
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, rows: Int64[Tensor, " rows"]) -> LabelledImages:
        """Return only the images at `rows`, with their labels."""
        return LabelledImages(self.images.subset(rows), self.labels[rows])

    def to(self, device: torch.device) -> LabelledImages:
        """Copy images and labels to a device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class TargetDataset:
    """Target images; only `evaluation/target_labels.py` may read their labels, if they have any."""

    images: UnlabelledImages
    hidden_labels: Int64[Tensor, " n"] | None

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, rows: Int64[Tensor, " rows"]) -> TargetDataset:
        """Return only the images at `rows`, with their labels."""
        labels = self.hidden_labels
        return TargetDataset(self.images.subset(rows), None if labels is None else labels[rows])

    def reveal_labels(self) -> Int64[Tensor, " n"] | None:
        """Return the labels, for `evaluation/target_labels.py` only."""
        return self.hidden_labels


class ImageShape(NamedTuple):
    """What a network must know about a task's images."""

    channels: int
    height: int
    width: int

    def checked(self) -> ImageShape:
        """Return the shape itself. Raises ValueError if no images can have it; a file may say anything."""
        if not all(type(size) is int and 0 < size <= LARGEST for size in self) or math.prod(self) > LARGEST:
            raise ValueError(f"no shape of images: {tuple(self)}")
        return self


class Batch(NamedTuple):
    """What a method sees in one step: source rows first, then target rows; either may be missing."""

    images: Float[Tensor, "n channels height width"]  # values in [0, 1]
    labels: Int64[Tensor, " source"]
    target_rows: Int64[Tensor, " target"] = NO_ROWS  # positions of the target images in the training set

    @property
    def n_source(self) -> int:
        """Number of source rows."""
        return len(self.labels)

    @property
    def target(self) -> Float[Tensor, "target channels height width"]:
        """The target images."""
        return self.images[self.n_source :]

    @property
    def is_source(self) -> Float[Tensor, " n"]:
        """1 for source rows, 0 for target rows."""
        return (torch.arange(len(self.images), device=self.images.device) < self.n_source).float()


def to_floats(pixels: Pixels, channels: int) -> Float[Tensor, "n channels height width"]:
    """Convert pixels to network input, channels-last in memory: bytes become [0, 1], grey is repeated to `channels`."""
    wide = pixels.expand(*pixels.shape[:3], channels).contiguous()
    floats = wide.float() if wide.is_floating_point() else wide.float().div_(255)
    return floats.permute(0, 3, 1, 2)


def spread(length: int, wanted: int) -> Int64[Tensor, " rows"]:
    """Return up to `wanted` rows, evenly spread over `length`.

    >>> spread(10, 4).tolist()
    [0, 3, 6, 9]
    """
    return torch.linspace(0, length - 1, min(wanted, length), dtype=torch.float64).round().long()
