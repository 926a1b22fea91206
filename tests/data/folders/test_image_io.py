"""Decoding of image files, good and broken."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mutualign.data.folders.image_io import decode_rgb
from mutualign.errors import MutualignError


def encoded(pixels: np.ndarray, image_format: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


PIXELS = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3) * 8
GOOD = encoded(PIXELS)


def test_a_png_gives_its_pixels_from_bytes_and_from_a_file(tmp_path):
    (tmp_path / "a.png").write_bytes(GOOD)
    for content in (GOOD, tmp_path / "a.png"):
        found = decode_rgb(content, "here", "PNG", (2, 5))
        assert found.dtype == torch.uint8
        assert found.tolist() == PIXELS.tolist()


def test_a_grey_image_is_repeated_in_three_channels():
    grey = PIXELS[..., 0]
    assert decode_rgb(encoded(grey), "here", "PNG").tolist() == [[[v, v, v] for v in row] for row in grey.tolist()]


def test_a_jpeg_has_its_height_first():
    assert decode_rgb(encoded(np.zeros((4, 9, 3), np.uint8), "JPEG"), "here", "JPEG").shape == (4, 9, 3)


def test_another_size_is_an_error_that_says_both():
    with pytest.raises(MutualignError, match=r"^x.png: an image of 2x5 pixels .*, expected 32x32$"):
        decode_rgb(GOOD, "x.png", "PNG", (32, 32))


BAD = {
    "nothing": b"",
    "text": b"text",
    "cut in the pixels": GOOD[:50],
    "cut after the pixels": GOOD[:-20],
    "a bit flipped in the pixels": GOOD[:48] + bytes([GOOD[48] ^ 1]) + GOOD[49:],
    "JPEG": encoded(PIXELS, "JPEG"),
    "BMP": encoded(PIXELS, "BMP"),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_anything_but_a_whole_image_of_the_format_is_an_error(content, faults):
    with (
        faults.injected("parsers are total"),
        pytest.raises(MutualignError, match=r"^x\.png: not a readable PNG image"),
    ):
        decode_rgb(content, "x.png", "PNG")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(MutualignError, match="not a readable JPEG image"):
        decode_rgb(tmp_path / "none.jpg", tmp_path / "none.jpg", "JPEG")


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_a_damaged_png_gives_the_right_pixels_or_an_error_of_ours(faults, start, noise):
    with faults.injected("corruption is found"):
        try:
            found = decode_rgb(GOOD[:start] + noise + GOOD[start + len(noise) :], "here", "PNG", (2, 5))
        except MutualignError:
            return
        assert found.tolist() == PIXELS.tolist()
