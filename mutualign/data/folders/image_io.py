"""Image files: their header, and their pixels as tensors; errors name the file and the fault."""

from __future__ import annotations

import re
import stat
import threading
import warnings
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from torch import Tensor

from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError

_KNOWN = {
    "PNG": {".png"},
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "WEBP": {".webp"},
    "BMP": {".bmp"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
    "GIF": {".gif"},
    "AVIF": {".avif"},  # where Pillow was built with it
    "HEIF": {".heic", ".heif"},  # with the plugin pillow_heif.HeifImagePlugin
}
# Formats that are read, each with the suffixes of its files.
FORMATS = {name: suffixes for name, suffixes in _KNOWN.items() if name in Image.registered_extensions().values()}
SUFFIXES = frozenset().union(*FORMATS.values())
GREY = frozenset({"1", "L", "LA", "I;16", "I;16B", "I;16L", "I;16N", "I"})  # Pillow's modes of images without colour
MOST_PIXELS = 2**26  # of a file, by its header: 64 megapixels, 192 MiB decoded
MOST_BYTES = 1 << 30  # of a file: twice what 64 megapixels take without compression, at 16 bits and four channels
BYTES_PER_PIXEL = 16  # of memory while an image is decoded: four copies at four bytes
ORIENTATION = 0x0112  # EXIF's tag
# What turns an image upright, by its orientation; from 5 on, height and width are swapped.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _Quiet:
    """A context without Pillow's warnings: of large images, since the limit here is lower, and of odd metadata.

    Filters of warnings belong to all threads: the first to enter sets them, the last to leave restores them.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.filters = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.filters.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.filters.close()


_QUIET = _Quiet()


def read_image_file(path: Path) -> bytes:
    """Read a file. Raises MutualignError, naming it, if it is not a regular file or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise MutualignError(f"{path}: not a regular file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise MutualignError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # a zero byte in the path
        raise MutualignError(f"{str(path)!r}: {error}") from error
    if len(content) > MOST_BYTES:
        raise MutualignError(f"{path}: larger than {MOST_BYTES >> 20} MiB, the most that is read")
    return content


def decode_rgb(
    content: Path | bytes, where: object, image_format: str, size: tuple[int, int] | None = None
) -> UInt8[Tensor, "height width 3"]:
    """Decode a PNG or JPEG (`image_format`) to colour; `size` is the height and width that it must have.

    Raises MutualignError that starts with `where` for anything else. The size is checked before decoding, and a PNG's
    checksums too.
    """
    try:
        stream = BytesIO(content if isinstance(content, bytes) else content.read_bytes())
        with Image.open(stream, formats=(image_format,)) as image:
            found = (image.height, image.width)
            image.verify()  # decoding alone accepts damaged pixels of a PNG
        if size is None or found == size:
            with Image.open(stream, formats=(image_format,)) as image:
                return torch.from_numpy(np.array(image.convert("RGB")))
    except MemoryError:
        raise
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, ValueError, AttributeError, ...
        raise MutualignError(f"{where}: not a readable {image_format} image: {_fault(error)}") from error
    raise MutualignError(
        f"{where}: an image of {found[0]}x{found[1]} pixels (height x width), expected {size[0]}x{size[1]}"
    )


def image_shape(content: bytes, where: object) -> ImageShape:
    """Read channels (1 for grey, 3 for any other), height and width as shown, from the header alone.

    Raises MutualignError that starts with `where` if it is not an image, or has more than 64 megapixels.
    """
    try:
        with _QUIET, _opened(content, where) as image:
            turned = image.format != "TIFF" and _orientation(image) >= 5  # Pillow has turned the size of a TIFF
            height, width = (image.width, image.height) if turned else (image.height, image.width)
            return ImageShape(1 if image.mode in GREY else 3, height, width)
    except (MutualignError, MemoryError):
        raise
    except Exception as error:
        raise MutualignError(f"{where}: not a readable image: {_fault(error)}") from error


def decode_image(content: bytes, where: object, shape: ImageShape) -> UInt8[Tensor, "height width channels"]:
    """Decode an image of one of the `FORMATS` to grey (1 channel) or colour (3) of a height and width.

    It is turned upright by its EXIF orientation; only the first frame counts; transparent parts become white. 16-bit
    grey is divided by 257; of 16-bit colour, in which a transparent colour is not seen, the high bytes are kept. An
    image of another size is scaled (bicubic, antialiased) until it covers height x width, and cropped to the middle. A
    JPEG that is much larger is first reduced by its decoder.

    Raises MutualignError that starts with `where` if it cannot be read to its end, has more than 64 megapixels (found
    before decoding), or has floating-point pixels, whose range no file states.
    """
    channels, height, width = shape
    try:
        with _QUIET, _opened(content, where) as image:
            if image.format == "PNG":
                image.verify()  # decoding alone accepts damaged pixels of a PNG
        with _QUIET, _opened(content, where) as image:
            image.draft(None, (2 * width, 2 * height))
            image.load()  # turns a TIFF
            turn = TURNS.get(_orientation(image))
            upright = image if turn is None else image.transpose(turn)
            if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
                upright = ImageChops.invert(upright)  # Pillow takes all for Adobe's, whose values are inverted
            upright = _eight_bits(upright, where).convert("L" if channels == 1 else "RGB")
    except (MutualignError, MemoryError):
        raise
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, ValueError, AttributeError, ...
        raise MutualignError(f"{where}: not a readable image: {_fault(error)}") from error
    if upright.size != (width, height):
        upright = ImageOps.fit(upright, (width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(upright)).view(height, width, channels)


def decoding_bytes(path: Path) -> int:
    """Return about how many bytes of memory decoding a file takes, from its header; 0 if it cannot be read."""
    try:
        if not path.is_file():
            return 0
        with _QUIET, Image.open(path, formats=tuple(FORMATS)) as image:
            return path.stat().st_size + image.width * image.height * BYTES_PER_PIXEL
    except Exception:  # decoding says what is wrong
        return 0


def _opened(content: bytes, where: object) -> Image.Image:
    try:
        image = Image.open(BytesIO(content), formats=tuple(FORMATS))
    except Image.DecompressionBombError as error:  # names only the number of pixels
        found = re.search(r"\d+", str(error))
        raise _too_large(where, f"{int(found[0]):,} pixels" if found else str(error)) from error
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(where, f"{image.height}x{image.width} pixels (height x width)")
    return image


def _orientation(image: Image.Image) -> int:
    """The orientation by EXIF, 1 to 8; 1, upright, if that is missing, odd or damaged: viewers show such an image."""
    try:
        found = Image.Image.getexif(image).get(ORIENTATION)  # a PNG's own getexif decodes it, to look after the pixels
    except MemoryError:
        raise
    except Exception:  # as many kinds as in decoding
        return 1
    return int(found) if found in TURNS else 1


def _fault(error: Exception) -> str:
    """What is wrong with a file, in words; Pillow's own name a buffer in memory if it knows no format."""
    return "its content has no known image format" if isinstance(error, UnidentifiedImageError) else str(error)


def _too_large(where: object, found: str) -> MutualignError:
    return MutualignError(f"{where}: {found}, more than the {MOST_PIXELS:,} that are read; make it smaller")


def _eight_bits(image: Image.Image, where: object) -> Image.Image:
    """Convert to eight bits per value without transparency."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise MutualignError(f"{where}: values from {values.min()} to {values.max()}; save it with 8 or 16 bits")
        eight = (values / 257).round().astype(np.uint8)
        eight[values == image.info.get("transparency")] = 255
        return Image.fromarray(eight)
    if image.mode == "F":
        raise MutualignError(f"{where}: floating-point pixels, whose range is unknown; save it with 8 or 16 bits")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image
