"""Small image files for the tests of folders."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

GRADIENT = np.arange(6 * 6, dtype=np.uint8).reshape(6, 6) * 7


def encoded(image: Image.Image | np.ndarray, image_format: str = "PNG", **options: object) -> bytes:
    """Encode an image in memory."""
    buffer = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, image_format, **options)
    return buffer.getvalue()


def write(path: Path, value: int = 100, size: tuple[int, int] = (6, 6), mode: str = "L") -> Path:
    """Write an image of one value, red in colour, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)
    return path


def png_header(height: int, width: int) -> bytes:
    """A PNG that claims a size and holds hardly any pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


GOOD = encoded(GRADIENT)
DAMAGED = GOOD[:60] + bytes([GOOD[60] ^ 1]) + GOOD[61:]
FLOATS = encoded(GRADIENT.astype(np.float32), "TIFF")  # its header can be read, its pixels cannot be decoded
