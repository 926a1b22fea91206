"""Pixels as pictures for people: PIL images, and data URLs for a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

PIXELATED = 64  # pixels of the longer side up to which a picture keeps its pixels

Pixels = UInt8[Tensor, "height width channels"] | UInt8[np.ndarray, "height width channels"]


def to_picture(pixels: Pixels) -> Image.Image:
    """Convert pixels of one or three channels."""
    array = np.asarray(pixels)
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def to_data_url(pixels: Pixels, longer_side: int) -> str:
    """Encode pixels for a page: as PNG if they are few, else as JPEG scaled down to `longer_side` pixels."""
    picture, buffer = to_picture(pixels), io.BytesIO()
    kind = "png" if max(picture.size) <= PIXELATED else "jpeg"
    if kind == "jpeg":
        picture.thumbnail((longer_side, longer_side))
    picture.save(buffer, kind, optimize=kind == "png", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
