"""Views of a photo: the picture, its mirror image, and random crops, as a function of a key."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from mutualign.data.folders.image_io import decode_image
from mutualign.data.types import ImageShape
from mutualign.nn.randomness import generator

LEAST_AREA = 0.5  # of the square, for a random crop
MOST_ASPECT = 1.25  # of a random crop: the longer side over the shorter one

Box = tuple[float, float, float, float]  # left, top, right, bottom, each in [0, 1]


def photo_views(content: bytes, where: object, side: int, views: int, *key: int | str) -> UInt8[Tensor, "v s s 3"]:
    """Decode an image file into `views` pictures of side x side pixels; the same key gives the same crops.

    The first view is that of `decode_image`, which a finished run takes of new images; the second is its mirror image.
    All others are random crops of half the area or more, of which every other one is mirrored. Raises MutualignError
    that starts with `where` for what cannot be decoded.
    """
    square = Image.fromarray(decode_image(content, where, ImageShape(3, side, side)).numpy())
    pictures = [square, ImageOps.mirror(square)]
    for number, box in enumerate(random_boxes(max(views - 2, 0), *key)):
        left, top, right, bottom = (edge * side for edge in box)
        crop = square.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        pictures.append(ImageOps.mirror(crop) if number % 2 else crop)
    return torch.stack([torch.from_numpy(np.array(picture)) for picture in pictures[:views]])


def random_boxes(count: int, *key: int | str) -> list[Box]:
    """Draw boxes inside the unit square, uniform in area, in the logarithm of the aspect, and in position.

    >>> left, top, right, bottom = random_boxes(1, "seed")[0]
    >>> 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    True
    """
    boxes = []
    for area, aspect, x, y in torch.rand(count, 4, generator=generator("views", *key)).tolist():
        size = LEAST_AREA + (1 - LEAST_AREA) * area
        ratio = MOST_ASPECT ** (2 * aspect - 1)
        width, height = min(1.0, math.sqrt(size * ratio)), min(1.0, math.sqrt(size / ratio))
        left, top = x * (1 - width), y * (1 - height)
        boxes.append((left, top, left + width, top + height))
    return boxes
