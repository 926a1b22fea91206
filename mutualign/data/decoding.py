"""Image files as tensors, or an error that names the file and the fault."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from mutualign.errors import MutualignError


def decode_rgb(
    content: Path | bytes, where: object, image_format: str, size: tuple[int, int] | None = None
) -> UInt8[Tensor, "height width 3"]:
    """The pixels of a PNG or JPEG (`image_format`), as colour; `size` is the height and width that it must have.

    Raises MutualignError that begins with `where` for anything else. The size is checked before the pixels are decoded,
    and a PNG's checksums before they are believed.
    """
    try:
        stream = BytesIO(content if isinstance(content, bytes) else content.read_bytes())
        with Image.open(stream, formats=(image_format,)) as image:
            found = (image.height, image.width)
            image.verify()  # decoding alone passes over damage in the pixels of a PNG
        if size is None or found == size:
            with Image.open(stream, formats=(image_format,)) as image:
                return torch.from_numpy(np.array(image.convert("RGB")))
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, ValueError, AttributeError, ...
        raise MutualignError(f"{where}: not a readable {image_format} image: {error}") from error
    raise MutualignError(
        f"{where}: an image of {found[0]}x{found[1]} pixels (height x width), expected {size[0]}x{size[1]}"
    )
