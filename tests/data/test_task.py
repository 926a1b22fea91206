"""Tasks: what they check, and the shape of their images."""

from __future__ import annotations

import pytest
import torch

from mutualign.data.datasets.bsds500 import Photos
from mutualign.data.datasets.mnistm import ResampledImages
from mutualign.data.task import KEPT, SAMPLES, Task, kept_rows, sample_rows
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages, spread
from mutualign.errors import MutualignError

PARTS = ("source train", "source test", "target train", "target test")


def images(n: int = 2, height: int = 4, width: int = 5, channels: int = 1) -> UnlabelledImages:
    return UnlabelledImages(torch.zeros(n, height, width, channels, dtype=torch.uint8))


def task_of(*parts: UnlabelledImages) -> Task:
    labels = [torch.zeros(len(part), dtype=torch.int64) for part in parts]
    source = [LabelledImages(part, own) for part, own in zip(parts[:2], labels[:2], strict=True)]
    target = [TargetDataset(part, own) for part, own in zip(parts[2:], labels[2:], strict=True)]
    return Task("a-task", "made in a test", ("a", "b"), *source, *target)


@pytest.mark.parametrize("part", range(4))
def test_a_part_with_images_of_another_size_or_without_any_is_an_error(part):
    parts = [images() for _ in range(4)]
    parts[part] = images(width=6)
    with pytest.raises(MutualignError, match=r"task a-task: images of different sizes: \[\(4, 5\), \(4, 6\)\]"):
        task_of(*parts)
    parts[part] = images(n=0)
    with pytest.raises(MutualignError, match=f"task a-task: no {PARTS[part]} images"):
        task_of(*parts)


@pytest.mark.parametrize(
    ("channels", "expected"), [((1, 1, 1, 1), 1), ((3, 3, 3, 3), 3), ((1, 1, 3, 3), 3), ((3, 3, 1, 1), 3)]
)
def test_the_shape_has_the_most_channels_of_all_images_and_height_before_width(channels, expected):
    assert task_of(*(images(channels=count) for count in channels)).shape == (expected, 4, 5)


@pytest.mark.parametrize("n", [1, 7, 32, 33, 10_000, 10_001, 25_000])
def test_samples_are_of_the_images_that_have_outputs_and_as_evenly_spread(n):
    kept, samples = kept_rows(n), sample_rows(n)
    assert len(kept) == min(n, KEPT)
    assert len(samples) == min(n, SAMPLES)
    assert samples.tolist() == kept[spread(len(kept), SAMPLES)].tolist()
    assert (samples - spread(n, SAMPLES)).abs().max() <= n / KEPT


def test_grey_digits_with_colour_backgrounds_count_as_colour():
    target = ResampledImages(images().pixels, Photos([torch.zeros(9, 9, 3, dtype=torch.uint8)]))
    assert task_of(images(), images(), target, target).shape == (3, 4, 5)
