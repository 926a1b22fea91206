"""BSDS500 photos as backgrounds: decoded once into one tensor, cropped at random in one gather."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mutualign.data.datasets.published import photo_files
from mutualign.data.fetch.data_files import require
from mutualign.data.folders.image_io import decode_rgb
from mutualign.errors import MutualignError


class Photos:
    """Photos of any sizes in one tensor of pixels, in reading order, photo after photo."""

    def __init__(self, photos: Sequence[UInt8[Tensor, "_ _ 3"]]) -> None:
        # "_": every photo may have another height and width
        self.pixels = torch.cat([photo.reshape(-1, 3) for photo in photos])
        self.heights, self.widths = (torch.tensor([photo.shape[axis] for photo in photos]) for axis in (0, 1))
        areas = self.heights * self.widths
        self.offsets = areas.cumsum(0) - areas

    def to(self, device: torch.device) -> Photos:
        """Copy the pixels to a device; crops are drawn on the CPU, so they are the same on every device."""
        moved = copy.copy(self)
        moved.pixels = self.pixels.to(device)
        return moved

    def crops(self, n: int, height: int, width: int, generator: torch.Generator) -> UInt8[Tensor, "n height width 3"]:
        """Draw random crops, uniform over photos and then over corners.

        Raises MutualignError if a photo is smaller than a crop.
        """
        small = ((self.heights < height) | (self.widths < width)).nonzero()
        if len(small):
            first = int(small[0])
            raise MutualignError(
                f"photo {first} is {self.heights[first]}x{self.widths[first]} pixels (height x width), too small for "
                f"crops of {height}x{width}; leave it out or enlarge it"
            )
        photo = torch.randint(len(self.offsets), (n,), generator=generator)
        u, v = torch.rand(2, n, generator=generator, dtype=torch.float64)
        top = (u * (self.heights[photo] - height + 1)).long()
        left = (v * (self.widths[photo] - width + 1)).long()
        return self.crops_at(photo, top, left, height, width)

    def crops_at(
        self, photo: Int64[Tensor, " n"], top: Int64[Tensor, " n"], left: Int64[Tensor, " n"], height: int, width: int
    ) -> UInt8[Tensor, "n height width 3"]:
        """Return the crops with the given photos and upper left corners."""
        stride = self.widths[photo]
        corner = self.offsets[photo] + top * stride + left
        rows = corner[:, None] + torch.arange(height) * stride[:, None]  # [n, height]
        return self.pixels[(rows[:, :, None] + torch.arange(width)).to(self.pixels.device)]


def load_bsds500(splits: Sequence[str], task: str, folder: Path) -> Photos:
    """Load the photos of some splits: train (200), val (100), test (200)."""
    paths = require(photo_files(*splits), task, folder)
    with ThreadPoolExecutor() as pool:
        return Photos(list(pool.map(lambda path: decode_rgb(path, path, "JPEG"), paths)))
