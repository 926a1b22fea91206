"""The embedded task: its sizes, its split, and each target image as its digit over the stripes of its own part."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn import datasets

from mutualign.data.datasets.digits import enlarge, load_digits
from mutualign.data.types import LabelledImages, TargetDataset
from mutualign.io.tensors import digest

Loaded = tuple[LabelledImages, LabelledImages, TargetDataset, TargetDataset]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load_digits()


def test_there_are_1437_digits_to_train_and_360_to_test_of_28x28_and_their_pixels_stay(loaded):
    for part, n, channels in zip(loaded, (1437, 360, 1437, 360), (1, 1, 3, 3), strict=True):
        assert part.images.pixels.shape == (n, 28, 28, channels)
    pixels = {str(number): part.images.pixels for number, part in enumerate(loaded)}
    assert digest(pixels).startswith("3aa69d1f278f476a")  # what all results are on


def moved_back(image: torch.Tensor) -> set[bytes]:
    """The image moved by every shift of up to two pixels."""
    shifts = itertools.product(range(-2, 3), repeat=2)
    return {bytes(image.roll(shift, dims=(0, 1)).numpy()) for shift in shifts}


def test_train_and_test_together_are_all_digits_those_of_train_moved(loaded):
    source_train, source_test, _, _ = loaded
    bunch = datasets.load_digits()
    everything = enlarge(torch.tensor(bunch.images) / 16)
    digits = {bytes(image.numpy()): int(label) for image, label in zip(everything, bunch.target, strict=True)}
    assert len(digits) == 1797  # no two digits are alike
    tested = [bytes(image.numpy()) for image in source_test.images.pixels]
    assert [digits[image] for image in tested] == source_test.labels.tolist()
    trained = []
    for image, label in zip(source_train.images.pixels, source_train.labels.tolist(), strict=True):
        (found,) = moved_back(image) & digits.keys()
        assert digits[found] == label
        trained.append(found)
    assert len({*trained, *tested}) == 1797
    still = sum(bytes(image.numpy()) == found for image, found in zip(source_train.images.pixels, trained, strict=True))
    assert 20 < still < 110  # 1437 / 25 are not moved, give or take


def test_the_target_has_the_labels_of_its_digits(loaded):
    source_train, source_test, target_train, target_test = loaded
    assert torch.equal(target_train.reveal_labels(), source_train.labels)
    assert torch.equal(target_test.reveal_labels(), source_test.labels)
    assert torch.bincount(source_test.labels, minlength=10).min() >= 20


@pytest.mark.parametrize(("part", "border"), [(0, 2), (1, 4)], ids=["train", "test"])
def test_a_digit_lies_in_a_black_border_and_uses_the_range(loaded, part, border):
    pixels = loaded[part].images.pixels
    inner = torch.zeros(28, 28, dtype=torch.bool)
    inner[border:-border, border:-border] = True
    assert pixels[:, ~inner].max() == 0
    assert (pixels.amax(dim=(1, 2, 3)) > 200).all()


def cubic_weight(distance: float) -> float:
    """The cubic convolution kernel with a = -0.75 (Keys, 1981)."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def test_a_digit_is_enlarged_by_cubic_convolution():
    digit = torch.tensor(datasets.load_digits().images[7]) / 16
    found = enlarge(digit[None])[0, 4:24, 4:24, 0]
    for row in range(0, 20, 3):
        for column in range(20):
            y, x = ((place + 0.5) * 8 / 20 - 0.5 for place in (row, column))
            value = 0.0
            for i in range(math.floor(y) - 1, math.floor(y) + 3):
                for j in range(math.floor(x) - 1, math.floor(x) + 3):
                    pixel = digit[min(max(i, 0), 7), min(max(j, 0), 7)].item()
                    value += cubic_weight(y - i) * cubic_weight(x - j) * pixel
            assert abs(found[row, column].item() - 255 * min(max(value, 0), 1)) <= 0.5 + 1e-3


def stripes_of_photos(first: int) -> list[np.ndarray]:
    """Every second of the ten stripes of 64 columns of each photo, below row 140."""
    photos = [photo[140:] for photo in datasets.load_sample_images().images]
    return [photo[:, left : left + 64] for photo in photos for left in range(64 * first, 640, 128)]


def finds_background(target: np.ndarray, digit: np.ndarray, photos: list[np.ndarray]) -> bool:
    """Whether the image is |patch - digit| for a patch of one of the photos.

    The digit's upper row is black, so there the image is the patch: candidates are found by that row, then checked.
    """
    for photo in photos:
        for top in range(photo.shape[0] - 27):
            row, start = photo[top].tobytes(), -1
            while (start := row.find(target[0].tobytes(), start + 1)) >= 0:
                left, off = divmod(start, 3)
                patch = photo[top : top + 28, left : left + 28].astype(int)
                if off == 0 and np.array_equal(abs(patch - digit), target):
                    return True
    return False


@pytest.mark.parametrize("part", [0, 1], ids=["train", "test"])
def test_each_target_image_is_its_digit_over_a_patch_of_the_stripes_of_its_own_part(loaded, part):
    source, target = loaded[part], loaded[part + 2]
    own, other = stripes_of_photos(part), stripes_of_photos(1 - part)
    assert [stripe.shape for stripe in own] == [(287, 64, 3)] * 10
    for row in range(0, 360, 60):
        image, digit = target.images.pixels[row].numpy(), source.images.pixels[row].numpy()
        assert finds_background(image, digit, own)
        assert not finds_background(image, digit, other)
