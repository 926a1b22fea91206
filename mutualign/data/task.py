"""A task: labelled source images, unlabelled target images, and test sets of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mutualign.data.types import ImageShape, LabelledImages, TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError


@dataclass(frozen=True)
class Task:
    """Everything an experiment reads. Whatever is called `target_` keeps its labels sealed."""

    name: str
    identity: str  # what exactly the images are, in words that allow making them again
    class_names: tuple[str, ...]
    source_train: LabelledImages
    source_test: LabelledImages
    target_train: TargetDataset
    target_test: TargetDataset
    notes: tuple[str, ...] = ()  # what a user should know of the images before training
    own: Mapping[str, Any] | None = None  # of a user's own images: what they are loaded by again

    def __post_init__(self) -> None:
        sizes = {images.pixels.shape[1:3] for images in self._images()}
        if len(sizes) != 1:
            raise MutualignError(f"task {self.name}: images of different sizes: {sorted(map(tuple, sizes))}")
        for part, images in zip(
            ("source train", "source test", "target train", "target test"), self._images(), strict=True
        ):
            if len(images) == 0:
                raise MutualignError(f"task {self.name}: no {part} images")

    @property
    def shape(self) -> ImageShape:
        """Height and width are those of every image; with grey and colour images mixed, grey ones become colour."""
        sample = [images.take(torch.tensor([0]), 0) for images in self._images()]
        return ImageShape(max(pixels.shape[3] for pixels in sample), *sample[0].shape[1:3])

    def _images(self) -> Sequence[UnlabelledImages]:
        return (self.source_train.images, self.source_test.images, self.target_train.images, self.target_test.images)
