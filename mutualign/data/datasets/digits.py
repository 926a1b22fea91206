"""`digits`: a small model of MNIST -> MNIST-M made from data inside scikit-learn; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from mutualign.data.datasets.bsds500 import Photos
from mutualign.data.datasets.mnist import DIGIT_NAMES
from mutualign.data.datasets.mnistm import blend_over_photos
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.nn.randomness import derive_seed, generator

SIZE, BOX = 28, 20  # as in MNIST: the digit in a box of 20x20, centred in an image of 28x28
TEST_DIGITS = 360  # of 1,797
SHIFT = 2  # pixels: the most that a training digit is moved in each direction
SKY, STRIPES = 140, 10  # of a photo: rows left out of 427, stripes that its 640 columns are cut into


def load_task(folder: Path) -> Task:
    """The embedded task; reads nothing from the data folder."""
    return Task(
        "digits",
        # Editing these words breaks resume for existing runs.
        "scikit-learn digits 8x8 enlarged to 20x20 bicubic and centred in 28x28; 1437 to train, moved by up to 2 "
        "pixels, 360 to test; target |patch - digit| over scikit-learn's two photos below row 140, cut into "
        "ten stripes of 64 columns, train over the first, third, ..., test over the rest, one background an image",
        DIGIT_NAMES,
        *load_digits(),
    )


def load_digits() -> tuple[LabelledImages, LabelledImages, TargetDataset, TargetDataset]:
    """Make source train, source test, target train and target test.

    Source: the 8x8 digits of Optical Recognition of Handwritten Digits (UCI), enlarged by `enlarge`; 1,437 for
    training, 360 for testing. Training digits are moved at random by up to two pixels; otherwise a network becomes
    overconfident on so few digits, and its pseudo-labels mean little.

    Target: the same images blended over patches of scikit-learn's two sample photos. The upper third of both photos is
    left out, because MNIST-M has little white sky, over which the blend inverts a digit. The rest is cut into ten
    stripes: odd ones for training digits, even ones for test digits.
    """
    from sklearn import datasets  # takes a second to import, and only this task needs it

    bunch = datasets.load_digits()
    pixels, labels = enlarge(torch.tensor(bunch.images) / 16), torch.tensor(bunch.target).long()
    order = torch.randperm(len(pixels), generator=generator("digits", "split"))
    photos = [torch.from_numpy(photo[SKY:].copy()) for photo in datasets.load_sample_images().images]
    stripes = [torch.split(photo, photo.shape[1] // STRIPES, dim=1) for photo in photos]

    def over(first: int, digits: UInt8[Tensor, "n size size 1"], name: str) -> UInt8[Tensor, "n size size 3"]:
        regions = Photos([stripe for photo in stripes for stripe in photo[first::2]])
        return blend_over_photos(digits, regions, derive_seed("digits", name))

    train, test = order[TEST_DIGITS:], order[:TEST_DIGITS]
    train_pixels, test_pixels = moved(pixels[train]), pixels[test]
    return (
        LabelledImages(UnlabelledImages(train_pixels), labels[train]),
        LabelledImages(UnlabelledImages(test_pixels), labels[test]),
        TargetDataset(UnlabelledImages(over(0, train_pixels, "train")), labels[train]),
        TargetDataset(UnlabelledImages(over(1, test_pixels, "test")), labels[test]),
    )


def moved(digits: UInt8[Tensor, "n size size 1"]) -> UInt8[Tensor, "n size size 1"]:
    """Move each digit by a random shift; the margin is wide enough that nothing is cut off."""
    shifts = torch.randint(-SHIFT, SHIFT + 1, (len(digits), 2), generator=generator("digits", "shift"))
    shifted = [
        digit.roll((down, right), dims=(0, 1)) for digit, (down, right) in zip(digits, shifts.tolist(), strict=True)
    ]
    return torch.stack(shifted)


def enlarge(digits: Float[Tensor, "n height width"]) -> UInt8[Tensor, "n size size 1"]:
    """Enlarge digits with values in [0, 1] to 20x20, bicubic, centred in 28x28, as bytes."""
    large = F.interpolate(digits[:, None].float(), size=(BOX, BOX), mode="bicubic").clamp(0, 1)
    framed = F.pad(large, [(SIZE - BOX) // 2] * 4)
    return (framed * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
