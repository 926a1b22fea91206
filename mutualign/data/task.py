"""A task: labelled source images, unlabelled target images, and test sets of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mutualign.data.features.settings import FeatureSettings
from mutualign.data.types import ImageShape, LabelledImages, TargetDataset, UnlabelledImages, spread
from mutualign.errors import MutualignError


@runtime_checkable
class TaskFolders(Protocol):
    """Where a user's images are; `load` makes the task again."""

    def load(self) -> Task: ...

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data for a run's config."""


ARRAYS = "arrays"  # the task of images that were given as arrays, which cannot be loaded again
REFIT = "fit again into a new folder: its images were arrays in memory"
KEPT = 10_000  # test images of each domain whose outputs a run keeps
SAMPLES = 32  # of these, the images that it keeps for reports, and for tests of an exported model


def kept_rows(images: int) -> Int64[Tensor, " rows"]:
    """The rows of a test set whose outputs a run keeps, evenly spread."""
    return spread(images, KEPT)


def sample_rows(images: int) -> Int64[Tensor, " rows"]:
    """The rows of a test set that are kept as images, evenly spread over those that have outputs."""
    kept = kept_rows(images)
    return kept[spread(len(kept), SAMPLES)]


@dataclass(frozen=True)
class Pictures:
    """What to show of the test images of a task that trains on features."""

    source: UnlabelledImages  # small pictures of the source test
    target: UnlabelledImages  # small pictures of the target test
    source_samples: UInt8[Tensor, "n side side 3"]  # of `sample_rows`, the photos as the pretrained network takes them
    target_samples: UInt8[Tensor, "m side side 3"]


@dataclass(frozen=True, eq=False)  # compared by identity: tensors have no single truth
class Task:
    """Everything an experiment reads. Fields named `target_` keep their labels hidden."""

    name: str
    identity: str  # what exactly the images are, in words that allow making them again
    class_names: tuple[str, ...]
    source_train: LabelledImages
    source_test: LabelledImages
    target_train: TargetDataset
    target_test: TargetDataset
    notes: tuple[str, ...] = ()  # what a user should know about the images before training
    folders: TaskFolders | None = None  # of a user's own images
    data_folder: Path | None = None  # of the files of a task with a name
    former_identities: tuple[str, ...] = ()  # what earlier versions called the same images
    features: FeatureSettings | None = None  # what the "images" are, if they are features of image files
    pictures: Pictures | None = None  # what to show of images that are features
    target_test_files: tuple[str, ...] = ()  # of a user's own images

    def __post_init__(self) -> None:
        sizes = {images.pixels.shape[1:3] for images in self._images()}
        if len(sizes) != 1:
            raise MutualignError(f"task {self.name}: images of different sizes: {sorted(map(tuple, sizes))}")
        for part, images in zip(
            ("source train", "source test", "target train", "target test"), self._images(), strict=True
        ):
            if len(images) == 0:
                raise MutualignError(f"task {self.name}: no {part} images")

    def is_data(self, identity: str) -> bool:
        """Whether an identity, as a run recorded it, is that of these images."""
        return identity in (self.identity, *self.former_identities)

    @property
    def shape(self) -> ImageShape:
        """The shape of every image; if grey and colour images are mixed, grey ones become colour."""
        sample = [images.take(torch.tensor([0]), 0) for images in self._images()]
        return ImageShape(max(pixels.shape[3] for pixels in sample), *sample[0].shape[1:3])

    def _images(self) -> Sequence[UnlabelledImages]:
        return (self.source_train.images, self.source_test.images, self.target_train.images, self.target_test.images)
