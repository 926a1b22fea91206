"""Images as a mosaic for a paper."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mutualign.data.pictures import to_picture

LARGE = 128  # pixels; smaller images are enlarged up to this size
GAP = 2  # pixels between the images of a mosaic
COLUMNS = 8  # of a mosaic


def mosaic(images: UInt8[np.ndarray, "n height width channels"]) -> bytes:
    """Arrange images on white, eight per row, as PNG; small images are enlarged by a whole factor."""
    n, height, width, _ = images.shape
    scale = max(1, LARGE // max(height, width))
    columns = min(n, COLUMNS)
    cell = (width * scale + GAP * scale, height * scale + GAP * scale)
    sheet = Image.new("RGB", (cell[0] * columns, cell[1] * -(-n // columns)), "white")
    for number, pixels in enumerate(images):
        enlarged = to_picture(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (number % columns * cell[0], number // columns * cell[1]))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", dpi=(300, 300))
    return buffer.getvalue()
