"""`digits`: a small model of MNIST -> MNIST-M from what scikit-learn ships; nothing is downloaded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from mutualign.data.datasets.bsds500 import Photos
from mutualign.data.datasets.mnistm import blend_over_photos
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.nn.randomness import derive_seed, generator

SIZE, BOX = 28, 20  # as in MNIST: the digit in a box of 20x20, centred in an image of 28x28
TEST_DIGITS = 360  # of 1,797
SHIFT = 2  # pixels by which a training digit is moved at most, in either direction
SKY, STRIPES = 140, 10  # rows left out of each photo's 427, and stripes its 640 columns are cut into


def load_digits() -> tuple[LabelledImages, LabelledImages, TargetDataset, TargetDataset]:
    """Source train and test, target train and test.

    Source: the 8x8 digits of Optical Recognition of Handwritten Digits (UCI), enlarged as `enlarge` does; 1,437 to
    train, 360 to test. Training digits are moved at random by up to two pixels: without that, a network grows so sure
    of itself on so few digits that its pseudo-labels mean little.

    Target: the same images blended over patches of the two photos that scikit-learn ships. Of both photos the upper
    third is left out: white sky, over which the blend inverts a digit, is rare in MNIST-M. The rest is cut into ten
    stripes; training digits lie over the first, third, ..., test digits over the others.
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
    """Each digit moved by its own random shift; the margin around it is wide enough that nothing is cut off."""
    shifts = torch.randint(-SHIFT, SHIFT + 1, (len(digits), 2), generator=generator("digits", "shift"))
    shifted = [
        digit.roll((down, right), dims=(0, 1)) for digit, (down, right) in zip(digits, shifts.tolist(), strict=True)
    ]
    return torch.stack(shifted)


def enlarge(digits: Float[Tensor, "n height width"]) -> UInt8[Tensor, "n size size 1"]:
    """Digits with values in [0, 1] as bytes: bicubic to 20x20, centred in 28x28."""
    large = F.interpolate(digits[:, None].float(), size=(BOX, BOX), mode="bicubic").clamp(0, 1)
    framed = F.pad(large, [(SIZE - BOX) // 2] * 4)
    return (framed * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
