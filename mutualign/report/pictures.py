"""Images as data URIs for a page, and as a mosaic for a paper."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

PIXELATED = 64  # pixels; images up to this size are kept as they are
SMOOTH = 48  # pixels; images of this size are shown smoothly, smaller ones with their pixels as squares
THUMBNAIL = 128  # pixels; larger images are shrunk to this size
GAP = 2  # pixels between the images of a mosaic
COLUMNS = 8  # of a mosaic

Pixels = UInt8[np.ndarray, "height width channels"]


def data_uri(pixels: Pixels) -> str:
    """Encode an image of one or three channels as a data URI: a small one as PNG, a larger one as a JPEG thumbnail."""
    image = _image(pixels)
    if max(image.size) <= PIXELATED:
        return _encode(image, "PNG", optimize=True)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return _encode(image, "JPEG", quality=85)


def mosaic(images: UInt8[np.ndarray, "n height width channels"]) -> bytes:
    """Arrange images on white, eight per row, as PNG; small images are enlarged by a whole factor."""
    n, height, width, _ = images.shape
    scale = max(1, THUMBNAIL // max(height, width))
    columns = min(n, COLUMNS)
    cell = (width * scale + GAP * scale, height * scale + GAP * scale)
    sheet = Image.new("RGB", (cell[0] * columns, cell[1] * -(-n // columns)), "white")
    for number, pixels in enumerate(images):
        enlarged = _image(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (number % columns * cell[0], number // columns * cell[1]))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", dpi=(300, 300))
    return buffer.getvalue()


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _encode(image: Image.Image, kind: str, **options: int | bool) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
