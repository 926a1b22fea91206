"""Images of the demo, as pure functions: a drawing as MNIST would have it, photo patches, digits over them, uploads."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from mutualign.data.datasets.mnistm import blend
from mutualign.data.folders.image_io import decode_image, image_shape
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError

MOST_BYTES = 5_000_000  # of an uploaded file
LONGER_SIDE = 280  # pixels that an uploaded digit is scaled to at most, before it is normalised
BOX = 20 / 28  # share of the image that MNIST's digits take up at most
PAPER = 0.2  # of the strongest ink: what is fainter is paper
LUMA = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601

UNREADABLE = (
    "This file could not be read as an image. PNG, JPEG, WebP, BMP and TIFF of up to 5 MB and 64 megapixels work."
)
EMPTY = "There is nothing in the box: draw a digit, or pick one."


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


def normalised(drawing: UInt8[Tensor, "_ _"], height: int, width: int) -> UInt8[Tensor, "height width 1"]:
    """A drawing, light on dark or dark on light, as MNIST holds digits: white on black, in one size, in one place.

    Ink is what differs from the border's median. Its box is scaled (antialiased) so that it fills 20/28 of the image in
    height or width, and placed so that its centre of mass is the image's, as near as whole pixels and the edge allow.
    Source: LeCun, Cortes, Burges, "The MNIST database".

    Raises MutualignError where there is no ink.
    """
    values = drawing.numpy().astype(np.float32)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    ink = np.abs(values - np.median(border))
    if ink.max() < 1:
        raise MutualignError(EMPTY)
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
    """The digit over each patch: `photo` is 1 for the blend of MNIST-M, 0 for the plain digit on black."""
    dimmed = (patches.float() * photo).round().to(torch.uint8)
    return blend(dimmed, digit[None].expand(len(patches), -1, -1, -1))


def photo_patches(height: int, width: int) -> UInt8[Tensor, "n height width 3"]:
    """Twelve varied patches of the two photos that scikit-learn ships, in several scales; `CUTS` says where from."""
    from sklearn.datasets import load_sample_images  # takes a second to import

    photos = load_sample_images().images
    patches = [
        Image.fromarray(photos[cut.photo][cut.top : cut.top + cut.side, cut.left : cut.left + cut.side]) for cut in CUTS
    ]
    scaled = [np.array(patch.resize((width, height), Image.Resampling.LANCZOS)) for patch in patches]
    return torch.from_numpy(np.stack(scaled))


def with_channels(
    pixels: UInt8[Tensor, "n height width stored"], channels: int
) -> UInt8[Tensor, "n height width channels"]:
    """Grey images as colour, or colour as grey (luma, ITU-R BT.601), as a network takes them."""
    if channels == 1 and pixels.shape[-1] == 3:
        return (pixels.float() @ torch.tensor(LUMA)).round().to(torch.uint8)[..., None]
    return pixels.expand(*pixels.shape[:3], channels)


def from_data_url(url: object) -> bytes:
    """The file in a data URL that the page sent. Raises MutualignError, for a reader of the page, for all else."""
    if not isinstance(url, str) or len(url) > MOST_BYTES * 4 / 3 + 200 or ";base64," not in url[:100]:
        raise MutualignError(UNREADABLE)
    try:
        return base64.b64decode(url.partition(";base64,")[2], validate=True)
    except binascii.Error as error:
        raise MutualignError(UNREADABLE) from error


def uploaded(content: bytes, shape: ImageShape) -> UInt8[Tensor, "1 height width channels"]:
    """An uploaded image as a network takes it: scaled until it covers height x width, and the middle cut out.

    Raises MutualignError, for a reader of the page, for what is no image, is not whole, or is too large.
    """
    try:
        return decode_image(content, "the upload", shape)[None]
    except MutualignError as error:
        raise MutualignError(UNREADABLE) from error


def uploaded_digit(content: bytes) -> UInt8[Tensor, "_ _"]:
    """A drawing or a photo of a digit as grey values, all of it, at most 280 pixels high and wide. Raises as above."""
    try:
        _, height, width = image_shape(content, "the upload")
        scale = min(1.0, LONGER_SIDE / max(height, width))
        shape = ImageShape(1, max(1, round(scale * height)), max(1, round(scale * width)))
        return decode_image(content, "the upload", shape)[..., 0]
    except MutualignError as error:
        raise MutualignError(UNREADABLE) from error
