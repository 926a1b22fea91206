"""Digits over photos: a drawing normalised as in MNIST, photo patches, the blend, and what systems answer there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from mutualign.data.datasets.mnistm import blend
from mutualign.data.types import ImageShape
from mutualign.demo.systems import Gallery, Verdict, furthest_apart

BOX = 20 / 28  # largest share of the image that MNIST's digits take up
PAPER = 0.2  # of the strongest ink: anything fainter is paper


class Cut(NamedTuple):
    """A square of one of scikit-learn's two photos: 0 is the pagoda, 1 the flower. In pixels."""

    photo: int
    top: int
    left: int
    side: int


CUTS = (
    Cut(1, 150, 60, 84),  # dark leaf
    Cut(1, 200, 290, 28),  # middle of the flower
    Cut(0, 85, 196, 28),  # roof tiles
    Cut(0, 352, 420, 28),  # bush
    Cut(0, 188, 146, 40),  # red pillars
    Cut(1, 240, 400, 56),  # petals before the dark
    Cut(0, 262, 398, 56),  # lake
    Cut(1, 120, 250, 84),  # petals
    Cut(0, 210, 575, 64),  # tree
    Cut(0, 140, 170, 72),  # eaves
    Cut(0, 345, 220, 64),  # lower roof
    Cut(0, 30, 60, 330),  # all of the pagoda
)


def normalise_digit(drawing: UInt8[Tensor, "_ _"], height: int, width: int) -> UInt8[Tensor, "height width 1"] | None:
    """Bring a drawing, light on dark or dark on light, to MNIST's form: white on black, one size, one position.

    Ink is what differs from the border's median. Its box is scaled (antialiased) to fill 20/28 of the image in height
    or width, and placed so that its centre of mass is the image's, as near as whole pixels and the edge allow. Returns
    None if there is no ink.
    Source: LeCun, Cortes, Burges, "The MNIST database".
    """
    values = drawing.numpy().astype(np.float32)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    ink = np.abs(values - np.median(border))
    if ink.max() < 1:
        return None
    ink /= ink.max()
    ink[ink < PAPER] = 0
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(BOX * height / box.shape[0], BOX * width / box.shape[1])
    size = [max(1, round(scale * side)) for side in box.shape]
    small = np.array(Image.fromarray(box).resize(size[::-1], Image.Resampling.BILINEAR))
    mass = small / small.sum()
    centre = [float(mass.sum(axis=1 - axis) @ np.arange(size[axis])) for axis in (0, 1)]
    corner = [
        min(max(round((side - 1) / 2 - middle), 0), side - length)
        for side, middle, length in zip((height, width), centre, size, strict=True)
    ]
    placed = np.zeros((height, width, 1), np.uint8)
    placed[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1], 0] = (255 * small / small.max()).round()
    return torch.from_numpy(placed)


def over(
    digit: UInt8[Tensor, "height width 1"], patches: UInt8[Tensor, "n height width 3"], photo: float
) -> UInt8[Tensor, "n height width 3"]:
    """Place a digit over each patch: `photo` is 1 for the blend of MNIST-M, 0 for the plain digit on black."""
    dimmed = (patches.float() * photo).round().to(torch.uint8)
    return blend(dimmed, digit[None].expand(len(patches), -1, -1, -1))


def photo_patches(height: int, width: int) -> UInt8[Tensor, "n height width 3"]:
    """Cut the twelve patches of `CUTS` from the two photos that scikit-learn ships."""
    from sklearn.datasets import load_sample_images  # takes a second to import

    photos = load_sample_images().images
    patches = [
        Image.fromarray(photos[cut.photo][cut.top : cut.top + cut.side, cut.left : cut.left + cut.side]) for cut in CUTS
    ]
    scaled = [np.array(patch.resize((width, height), Image.Resampling.LANCZOS)) for patch in patches]
    return torch.from_numpy(np.stack(scaled))


class Square(NamedTuple):
    """The digit over one patch, and each system's answer there: the class, and whether it is its answer on black."""

    pixels: UInt8[Tensor, "height width 3"]
    answers: list[tuple[str, bool]]


@dataclass(frozen=True)
class DigitBench:
    """A gallery of digit systems, with example digits and photo patches to place them on."""

    gallery: Gallery

    @cached_property
    def patches(self) -> UInt8[Tensor, "n height width 3"]:
        """The photo patches."""
        return photo_patches(self.gallery.shape.height, self.gallery.shape.width)

    @cached_property
    def examples(self) -> UInt8[Tensor, "n height width 1"]:
        """Up to ten digits, each of another class by the systems' mean probabilities.

        The first of each class among the run's own grey images (source first) and the digits that scikit-learn ships.
        """
        systems = self.gallery.systems
        grey = [samples.pixels for samples in reversed(self.gallery.samples) if samples.pixels.shape[-1] == 1]
        digits = torch.cat([*grey[:1], _shipped_digits(self.gallery.shape)])
        predicted = torch.stack([system.probabilities(digits) for system in systems]).mean(0).argmax(1)
        return digits[[int((predicted == number).nonzero()[0]) for number in sorted(set(predicted.tolist()))]]

    def opening(self) -> tuple[int, int]:
        """Return the example and the patch that the page opens with, where adaptation shows most.

        The example is the one whose answer the last system keeps over more patches than the first, by the widest
        margin; the patch is the one where their probabilities differ most.
        """
        margins, apart = [], []
        for digit in self.examples:
            placed = torch.cat([digit.expand(-1, -1, 3)[None], over(digit, self.patches, 1.0)])
            first, last = (self.gallery.systems[end].probabilities(placed) for end in (0, -1))
            kept = [int((found[1:].argmax(1) == found[0].argmax()).sum()) for found in (first, last)]
            margins.append(kept[1] - kept[0])
            apart.append(furthest_apart(first[1:], last[1:]))
        example = margins.index(max(margins))
        return example, apart[example]

    def place(
        self, digit: UInt8[Tensor, "height width 1"], patch: int, photo: float
    ) -> tuple[list[Verdict], list[Square]]:
        """Return what each system answers for a digit over one patch, and over all."""
        placed = over(digit, self.patches, photo)
        images = torch.cat([digit.expand(-1, -1, 3)[None], placed])
        names, verdicts, answers = self.gallery.class_names, [], []
        for system in self.gallery.systems:
            plain, *found = system.probabilities(images)
            kept = [bool(each.argmax() == plain.argmax()) for each in found]
            verdict = self.gallery.verdict(system, found[patch], names[int(plain.argmax())])
            verdicts.append(verdict._replace(right=sum(kept), of=len(kept)))
            answers.append([(names[int(each.argmax())], same) for each, same in zip(found, kept, strict=True)])
        squares = [Square(pixels, list(each)) for pixels, each in zip(placed, zip(*answers, strict=True), strict=True)]
        return verdicts, squares

    def without_digit(self, photo: float) -> list[Square]:
        """Return the patches alone."""
        dimmed = (self.patches.float() * photo).round().to(torch.uint8)
        return [Square(pixels, []) for pixels in dimmed]


def _shipped_digits(shape: ImageShape) -> UInt8[Tensor, "n height width 1"]:
    from sklearn.datasets import load_digits

    images = torch.tensor(load_digits().images[:100] / 16 * 255).round().to(torch.uint8)
    framed = torch.nn.functional.pad(images, (2, 2, 2, 2))
    found = (normalise_digit(image, shape.height, shape.width) for image in framed)
    return torch.stack([digit for digit in found if digit is not None])
