"""MNIST-M from its parts: digits blended with patches of photos, in the variants frozen and resampled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mutualign.data.cache import cached
from mutualign.data.datasets.bsds500 import Photos, load_bsds500
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.io.tensors import digest
from mutualign.nn.randomness import derive_seed


def blend(
    patches: UInt8[Tensor, "n height width 3"], digits: UInt8[Tensor, "n height width 1"]
) -> UInt8[Tensor, "n height width 3"]:
    """Return |patch - digit|, the blend of MNIST-M. Source: Ganin and Lempitsky, ICML 2015, section 4."""
    return torch.maximum(patches, digits) - torch.minimum(patches, digits)


def blend_over_photos(
    digits: UInt8[Tensor, "n height width 1"], photos: Photos, key: int
) -> UInt8[Tensor, "n height width 3"]:
    """Blend each digit with a random patch of a random photo; `key` is the seed."""
    n, height, width, _ = digits.shape
    return blend(photos.crops(n, height, width, torch.Generator().manual_seed(key)), digits)


@dataclass(frozen=True)
class ResampledImages(UnlabelledImages):
    """Digits (`pixels`) with a new background at every access, as in the published code."""

    photos: Photos

    def take(self, indices: Int64[Tensor, " batch"], key: int) -> UInt8[Tensor, "batch height width channels"]:
        return blend_over_photos(super().take(indices, key), self.photos, key)

    def to(self, device: torch.device) -> ResampledImages:
        return ResampledImages(self.pixels.to(device), self.photos.to(device))


def frozen(
    train: LabelledImages, test: LabelledImages, folder: Path, task: str, seed: int = 0
) -> tuple[TargetDataset, TargetDataset]:
    """Blend each image with one background, fixed by the seed; training and test images use the split of their name.

    The result is cached by the digits' content. Raises MutualignError if photos are missing.
    """

    def build(digits: LabelledImages, split: str) -> UInt8[Tensor, "n height width 3"]:
        photos = load_bsds500([split], task, folder)
        key = derive_seed("mnistm", split, seed)
        chunks = torch.split(digits.images.pixels, 5000)  # bounds the size of the index tensors
        return torch.cat([blend_over_photos(chunk, photos, key + i) for i, chunk in enumerate(chunks)])

    digits = digest({"train": train.images.pixels, "test": test.images.pixels})
    pixels = cached(
        f"mnistm-frozen-v1-seed{seed}-{digits[:32]}",
        lambda: {"train": build(train, "train"), "test": build(test, "test")},
    )
    return (
        TargetDataset(UnlabelledImages(pixels["train"]), train.labels),
        TargetDataset(UnlabelledImages(pixels["test"]), test.labels),
    )


def resampled(
    train: LabelledImages, test: LabelledImages, folder: Path, task: str
) -> tuple[TargetDataset, TargetDataset]:
    """Blend images with new backgrounds at every access, in training and test, from all 500 photos."""
    photos = load_bsds500(["train", "val", "test"], task, folder)
    return (
        TargetDataset(ResampledImages(train.images.pixels, photos), train.labels),
        TargetDataset(ResampledImages(test.images.pixels, photos), test.labels),
    )
