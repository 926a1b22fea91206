"""Strong views: batched random changes of images that keep their class, each image with its own parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.nn.layers import random_bytes


@dataclass(frozen=True)
class Views:
    """How much a strong view may differ from its image; 0 leaves a property alone.

    The defaults suit objects that fill the image and mean the same when they are slightly turned, moved or recoloured.
    """

    geometry: float = 0.5  # times: 20 degrees, 20 % of scale, 10 % of aspect, a shear of 0.2, 9 % of the side
    colour: float = 1.0  # times: a contrast of e^-0.7 to e^0.5 and a brightness of 0.25, for each channel
    inversion: float = 0.5  # share of images whose values are inverted
    texture: float = 1.0  # most of a target image that is added to or subtracted from a source image
    noise: float = 0.5  # amplitude, at most, of the noise on every value


def strong_views(images: Float[Tensor, "n channels height width"], views: Views) -> Float[Tensor, "n channels h w"]:
    """A strong view of every image, channels-last in memory; draws from torch's global generator.

    Values may leave [0, 1]. Fields: see `Views`.
    """
    if views.geometry:
        images = F.grid_sample(images, affine_grid(images, views.geometry), padding_mode="border", align_corners=False)
    if views.colour or views.inversion:
        gain = torch.exp(views.colour * uniform(images, -0.7, 0.5, per_channel=True))
        inverted = uniform(images, 0.0, 1.0) < views.inversion
        offset = 0.5 + views.colour * uniform(images, -0.25, 0.25, per_channel=True)
        images = (images - 0.5) * torch.where(inverted, -gain, gain) + offset
    images = images.contiguous(memory_format=torch.channels_last)
    if views.noise:
        images = images + uniform(images, 0.0, views.noise) * noise_like(images)
    return images


def add_texture(
    images: Float[Tensor, "n channels height width"], others: Float[Tensor, "m channels height width"], most: float
) -> Float[Tensor, "n channels height width"]:
    """Each image plus a random one of `others`, less its middle grey, times a factor drawn from [-most, most].

    A source image with a target's texture keeps its class, and meets what is in the target images around the object:
    a mixing of domains in the manner of FixBi (Na et al., CVPR 2021), of either sign. No other, or 0: as it was.
    """
    if not most or not len(others):
        return images
    rows = torch.randint(len(others), (len(images),), device=images.device)
    return images + uniform(images, -most, most) * (others[rows] - 0.5)


def affine_grid(images: Float[Tensor, "n channels height width"], strength: float) -> Float[Tensor, "n height width 2"]:
    """Where each pixel of a view is taken from, as `grid_sample` wants it: a random affine map for each image."""
    n, _, height, width = images.shape
    draw = torch.rand(6, n, device=images.device) * 2 - 1
    angle, scale, aspect, shear = strength * draw[:4] * torch.tensor([[math.radians(20)], [0.2], [0.1], [0.2]])
    shift = strength * 0.18 * draw[4:].T  # of the half side that grid_sample counts in
    cosine, sine, across, down = angle.cos(), angle.sin(), 1 + scale, (1 + scale) * (1 + aspect)
    matrix = torch.stack([cosine * across, (shear - sine) * across, sine * down, cosine * down], dim=1).view(n, 2, 2)
    rows = (torch.arange(height, device=images.device) * 2 + 1) / height - 1
    columns = (torch.arange(width, device=images.device) * 2 + 1) / width - 1
    points = torch.cartesian_prod(rows, columns).flip(1)  # (x, y) of every pixel
    return (points @ matrix.transpose(1, 2) + shift[:, None]).view(n, height, width, 2)


def noise_like(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
    """Independent noise, even over 256 values in [-1, 1]: an eighth of the draws that floats take."""
    n, channels, height, width = images.shape
    bytes_ = random_bytes(images.numel(), images.device).view(n, height, width, channels).permute(0, 3, 1, 2)
    return bytes_ / 127.5 - 1  # type: ignore[no-any-return]


def uniform(
    images: Float[Tensor, "n channels height width"], low: float, high: float, per_channel: bool = False
) -> Float[Tensor, "n c 1 1"]:
    """A random number for each image, or for each of its channels."""
    channels = images.shape[1] if per_channel else 1
    return torch.rand(len(images), channels, 1, 1, device=images.device) * (high - low) + low
