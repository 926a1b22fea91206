"""Drawn shapes in images of 64x64 pixels: one colour on another, and over photos."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw

from mutualign.data.datasets.bsds500 import Photos
from mutualign.data.datasets.mnistm import blend

SIDE = 64
FINE = 4  # shapes are drawn this many times larger, then reduced by means of FINE x FINE pixels
SHAPES = ("arrow", "crescent", "cross", "disc", "ring", "square", "star", "triangle")
SHAPES_ARE = (
    f"{len(SHAPES)} shapes ({', '.join(SHAPES)}), equally frequent, in {SIDE}x{SIDE} colour images; centre uniform in "
    "the middle 16x16 pixels, radius uniform in 12 to 20, turned by a uniform angle. Source: a colour on another, each "
    "uniform, that differ by 120 or more (sum of the channels' differences). Target: |crop - mask|, a random crop of a "
    "BSDS500 photo, train and test photos apart. Source 8,000 / 2,000, target 8,000 without labels / 2,000; "
    "PCG64 of (part, row)"
)


def mask_of(shape: str, random: np.random.Generator) -> torch.Tensor:
    """Draw a shape near the middle: 255 inside, 0 outside, smooth at the edge. Returns uint8 [SIDE, SIDE, 1]."""
    x, y = FINE * random.uniform(SIDE / 2 - 8, SIDE / 2 + 8, 2)
    radius, angle = FINE * random.uniform(12, 20), random.uniform(0, 2 * math.pi)
    image = Image.new("L", (FINE * SIDE, FINE * SIDE))
    draw = ImageDraw.Draw(image)

    def polygon(*corners: tuple[float, float]) -> None:
        """Draw a polygon with corners (angle in turns, distance in radii)."""
        points = [(angle + 2 * math.pi * turn, radius * far) for turn, far in corners]
        draw.polygon([(x + far * math.cos(at), y + far * math.sin(at)) for at, far in points], fill=255)

    def disc(far: float, share: float, fill: int) -> None:
        at_x, at_y = x + far * radius * math.cos(angle), y + far * radius * math.sin(angle)
        draw.ellipse([at_x - share * radius, at_y - share * radius, at_x + share * radius, at_y + share * radius], fill)

    def bar(turn: float, half_width: float) -> None:
        """Draw a bar from edge to edge of the unit circle, through the middle."""
        half = math.asin(half_width) / (2 * math.pi)
        polygon(*((turn + at, 1) for at in (-half, half, 0.5 - half, 0.5 + half)))

    match shape:
        case "arrow":
            polygon((0, 1), (1 / 3, 1), (1 / 2, 0.15), (2 / 3, 1))
        case "crescent":
            disc(0, 1, 255)
            disc(0.5, 0.8, 0)
        case "cross":
            bar(0, 0.3)
            bar(0.25, 0.3)
        case "disc":
            disc(0, 0.85, 255)
        case "ring":
            disc(0, 1, 255)
            disc(0, 0.55, 0)
        case "square":
            polygon(*((turn / 4, 1) for turn in range(4)))
        case "star":
            polygon(*((turn / 10, 0.45 if turn % 2 else 1) for turn in range(10)))
        case "triangle":
            polygon(*((turn / 3, 1) for turn in range(3)))
        case _:
            raise ValueError(shape)
    return torch.from_numpy(np.asarray(image.reduce(FINE)).copy())[..., None]


def in_two_colours(shape: str, random: np.random.Generator) -> torch.Tensor:
    """Draw a shape of one colour on another. Returns uint8 [SIDE, SIDE, 3]."""
    mask = mask_of(shape, random).float() / 255
    inside, outside = next(pair for pair in (random.integers(0, 256, (2, 3)) for _ in itertools.count()) if apart(pair))
    return (mask * torch.tensor(inside) + (1 - mask) * torch.tensor(outside)).round().byte()


def apart(colours: np.ndarray) -> bool:
    """Whether two colours differ clearly."""
    return int(abs(colours[0] - colours[1]).sum()) >= 120


def over_photos(photos: Photos) -> Callable[[str, np.random.Generator], torch.Tensor]:
    """Return a function that draws a shape over a random crop of a random photo, by the difference blend of MNIST-M."""

    def draw(shape: str, random: np.random.Generator) -> torch.Tensor:
        mask = mask_of(shape, random)
        crop = photos.crops(1, SIDE, SIDE, torch.Generator().manual_seed(int(random.integers(2**62))))
        return blend(crop, mask[None])[0]

    return draw
