"""`digits`: a small model of MNIST -> MNIST-M from what scikit-learn ships; nothing is downloaded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from sklearn import datasets
from torch import Tensor

from mutualign.data.images import LabelledImages, SealedImages, UnlabelledImages
from mutualign.data.mnistm import blend_over_photos
from mutualign.data.photos import Photos
from mutualign.randomness import derive_seed, generator

SIZE, BOX = 28, 20  # as in MNIST: the digit in a box of 20x20, centred in an image of 28x28
TEST_DIGITS = 360  # of 1,797


def load_digits() -> tuple[LabelledImages, LabelledImages, SealedImages, SealedImages]:
    """Source train and test, target train and test.

    Source: the 8x8 digits of Optical Recognition of Handwritten Digits (UCI), enlarged as `enlarge` does; 1,437 to train, 360 to
    test. Target: the same digits blended over patches of the two photos that scikit-learn ships: training
    digits over the left half of each photo, test digits over the right half.
    """
    bunch = datasets.load_digits()
    digits = LabelledImages(
        UnlabelledImages(enlarge(torch.tensor(bunch.images) / 16)), torch.tensor(bunch.target).long()
    )
    order = torch.randperm(len(digits), generator=generator("digits", "split"))
    photos = [torch.from_numpy(photo.copy()) for photo in datasets.load_sample_images().images]
    halves = photos[0].shape[1] // 2

    def split(rows: Tensor, sides: list[Tensor], name: str) -> tuple[LabelledImages, SealedImages]:
        pixels, labels = digits.images.pixels[rows], digits.labels[rows]
        blended = blend_over_photos(pixels, Photos(sides), derive_seed("digits", name))
        return LabelledImages(UnlabelledImages(pixels), labels), SealedImages(UnlabelledImages(blended), labels)

    source_train, target_train = split(order[TEST_DIGITS:], [photo[:, :halves] for photo in photos], "train")
    source_test, target_test = split(order[:TEST_DIGITS], [photo[:, halves:] for photo in photos], "test")
    return source_train, source_test, target_train, target_test


def enlarge(digits: Float[Tensor, "n height width"]) -> UInt8[Tensor, "n size size 1"]:
    """Digits with values in [0, 1] as bytes: bicubic to 20x20, centred in 28x28."""
    large = F.interpolate(digits[:, None].float(), size=(BOX, BOX), mode="bicubic").clamp(0, 1)
    framed = F.pad(large, [(SIZE - BOX) // 2] * 4)
    return (framed * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
