"""Strong views: batched random augmentation that keeps the class, with parameters drawn per image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.nn.randomness import random_bytes


@dataclass(frozen=True)
class AugmentConfig:
    """How much a strong view may differ from its image; 0 turns a change off.

    The defaults suit objects that fill the image and keep their class when slightly rotated, moved or recoloured.
    """

    geometry: float = 1.0  # times 10 degrees, `scale`, 5 % of aspect ratio, a shear of 0.1, 4.5 % of the side
    scale: float = 0.1  # the largest change of size under geometry, as a share
    solarise: float = 0.5  # share of images that are solarised, each channel at its own level from 0.3 to 1
    colour: float = 1.0  # times a contrast of e^-0.7 to e^0.5 and a brightness of 0.25, per channel
    inversion: float = 0.5  # share of images that are inverted
    texture: float = 1.0  # of source images: the largest share of a target image that is added or subtracted,
    noise: float = 0.5  # and the largest amplitude of noise; both only if the target is more cluttered


def strong_views(
    images: Float[Tensor, "n channels height width"], views: AugmentConfig
) -> Float[Tensor, "n channels h w"]:
    """Return a strong view of every image, channels-last in memory; draws from torch's global generator.

    Images are warped, then solarised, then recoloured and inverted; values may leave [0, 1].
    """
    if views.geometry:
        images = F.grid_sample(images, affine_grid(images, views), padding_mode="border", align_corners=False)
    if views.solarise:
        images = torch.where(uniform(images, 0.0, 1.0) < views.solarise, solarised(images), images)
    if views.colour or views.inversion:
        gain = torch.exp(views.colour * uniform(images, -0.7, 0.5, per_channel=True))
        inverted = uniform(images, 0.0, 1.0) < views.inversion
        offset = 0.5 + views.colour * uniform(images, -0.25, 0.25, per_channel=True)
        images = (images - 0.5) * torch.where(inverted, -gain, gain) + offset
    return images.contiguous(memory_format=torch.channels_last)


def solarised(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
    """Fold values above a level down, v to level - |v - level|: shapes become outlines, edges stay.

    Each channel has its own random level. This is photographic solarisation; that of RandAugment (Cubuk et al., NeurIPS
    2020) inverts the values instead, v to 1 - v.
    """
    level = uniform(images, 0.3, 1.0, per_channel=True)
    return level - (images - level).abs()


def add_target_texture(
    source: Float[Tensor, "n channels height width"],
    target: Float[Tensor, "m channels height width"],
    views: AugmentConfig,
) -> Float[Tensor, "n channels height width"]:
    """Add a target image and noise to source images, in proportion to how much more cluttered the target is.

    Each source image gets a random target image, minus mid-grey, times a random factor of either sign, and uniform
    noise of a random amplitude. The strength is full if the target has twice the source's clutter, and zero if it has
    no more. Source: in the spirit of FixBi (Na et al., CVPR 2021).
    """
    if not len(target):
        return source
    strength = (clutter(target) / clutter(source).clamp_min(1e-6) - 1).clamp(0, 1)
    if views.texture:
        rows = torch.randint(len(target), (len(source),), device=source.device)
        source = source + strength * uniform(source, -views.texture, views.texture) * (target[rows] - 0.5)
    if views.noise:
        source = source + strength * uniform(source, 0.0, views.noise) * noise_like(source)
    return source


def clutter(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, ""]:
    """Return the share of horizontal neighbours that differ by 0.02 or more: 0.17 in MNIST, 0.51 in MNIST-M."""
    return ((images[..., 1:] - images[..., :-1]).abs() >= 0.02).float().mean()


def fourier_swap(
    source: Float[Tensor, "n channels height width"], target: Float[Tensor, "n channels height width"], beta: float
) -> Float[Tensor, "n channels height width"]:
    """Replace the low-frequency amplitudes of source images by those of target images; phases stay.

    The square of swapped frequencies reaches floor(beta * shorter side) from the centre of the spectrum in every
    direction. Source: Yang and Soatto, "FDA", CVPR 2020, eq. 3.
    """
    height, width = source.shape[2:]
    reach = int(beta * min(height, width))
    spectra = [torch.fft.rfft2(images.float()) for images in (source, target)]
    rows = torch.fft.fftfreq(height, 1 / height, device=source.device).abs()[:, None] <= reach
    columns = torch.fft.rfftfreq(width, 1 / width, device=source.device) <= reach
    amplitude = torch.where(rows & columns, spectra[1].abs(), spectra[0].abs())
    swapped = torch.fft.irfft2(torch.polar(amplitude, spectra[0].angle()), s=(height, width))
    return swapped.to(source.dtype).contiguous(memory_format=torch.channels_last)  # type: ignore[no-any-return]


def affine_grid(
    images: Float[Tensor, "n channels height width"], views: AugmentConfig
) -> Float[Tensor, "n height width 2"]:
    """Return a random affine map per image, as a grid for `grid_sample`: float32 under autocast too.

    In bf16, positions would be off by up to half a pixel of a photo.
    """
    n, _, height, width = images.shape
    draw = torch.rand(6, n, device=images.device) * 2 - 1
    limits = (math.radians(10), views.scale, 0.05, 0.1)
    most = torch.stack([torch.full((1,), limit, device=images.device) for limit in limits])  # a copy waits for a GPU
    angle, scale, aspect, shear = views.geometry * most * draw[:4]
    shift = views.geometry * 0.09 * draw[4:].T  # in the units of grid_sample, half a side
    cosine, sine, across, down = angle.cos(), angle.sin(), 1 + scale, (1 + scale) * (1 + aspect)
    entries = (cosine * across, (shear - sine) * across * height / width, sine * down * width / height, cosine * down)
    matrix = torch.stack(entries, dim=1).view(n, 2, 2)  # every side is 2 long in a grid: hence height / width
    rows = (torch.arange(height, device=images.device) * 2 + 1) / height - 1
    columns = (torch.arange(width, device=images.device) * 2 + 1) / width - 1
    points = torch.cartesian_prod(rows, columns).flip(1)  # (x, y) of every pixel
    with torch.autocast(images.device.type, enabled=False):
        return (points @ matrix.transpose(1, 2) + shift[:, None]).view(n, height, width, 2)


def noise_like(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
    """Return independent noise, uniform over 256 values in [-1, 1], from an eighth of the draws that floats need."""
    n, channels, height, width = images.shape
    bytes_ = random_bytes(images.numel(), images.device).view(n, height, width, channels).permute(0, 3, 1, 2)
    return bytes_ / 127.5 - 1  # type: ignore[no-any-return]


def uniform(
    images: Float[Tensor, "n channels height width"], low: float, high: float, per_channel: bool = False
) -> Float[Tensor, "n c 1 1"]:
    """Draw a uniform random number for each image, or for each of its channels."""
    channels = images.shape[1] if per_channel else 1
    return torch.rand(len(images), channels, 1, 1, device=images.device) * (high - low) + low
