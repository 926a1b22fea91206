"""Images between a browser and a network: data URLs, uploads, channels."""

from __future__ import annotations

import base64
import binascii

import torch
from jaxtyping import UInt8
from torch import Tensor

from mutualign.data.folders.image_io import decode_image, image_shape
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError

LARGEST_UPLOAD = 20_000_000  # bytes of a file: a photo of a phone has up to 15 MB
LONGER_SIDE = 280  # pixels that an uploaded digit is scaled down to, before it is normalised
LUMA = (0.299, 0.587, 0.114)  # weights of red, green, blue: ITU-R BT.601

UNREADABLE = (
    "This file could not be read as an image. PNG, JPEG, WebP, BMP and TIFF of up to "
    f"{LARGEST_UPLOAD // 1_000_000} MB and 64 megapixels work."
)


def with_channels(
    pixels: UInt8[Tensor, "n height width stored"], channels: int
) -> UInt8[Tensor, "n height width channels"]:
    """Convert grey images to colour, or colour to grey (luma, ITU-R BT.601), as a network needs them."""
    if channels == 1 and pixels.shape[-1] == 3:
        return (pixels.float() @ torch.tensor(LUMA)).round().to(torch.uint8)[..., None]
    return pixels.expand(*pixels.shape[:3], channels)


def from_data_url(url: object) -> bytes:
    """Return the file in a data URL that the page sent. Raises MutualignError, for readers of the page, otherwise."""
    if not isinstance(url, str) or len(url) > LARGEST_UPLOAD * 4 / 3 + 200 or ";base64," not in url[:100]:
        raise MutualignError(UNREADABLE)
    try:
        return base64.b64decode(url.partition(";base64,")[2], validate=True)
    except binascii.Error as error:
        raise MutualignError(UNREADABLE) from error


def decode_upload(content: bytes, shape: ImageShape) -> UInt8[Tensor, "1 height width channels"]:
    """Decode an uploaded image as a network needs it: scaled until it covers height x width, and the middle cut out.

    Raises MutualignError, for readers of the page, if it is not an image, is not complete, or is too large.
    """
    try:
        return decode_image(content, "the upload", shape)[None]
    except MutualignError as error:
        raise MutualignError(UNREADABLE) from error


def decode_digit(content: bytes) -> UInt8[Tensor, "_ _"]:
    """Decode a drawing or a photo of a digit to grey values, all of it, at most 280 pixels high and wide.

    Raises MutualignError as `decode_upload` does.
    """
    try:
        _, height, width = image_shape(content, "the upload")
        scale = min(1.0, LONGER_SIDE / max(height, width))
        shape = ImageShape(1, max(1, round(scale * height)), max(1, round(scale * width)))
        return decode_image(content, "the upload", shape)[..., 0]
    except MutualignError as error:
        raise MutualignError(UNREADABLE) from error
