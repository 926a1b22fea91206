"""Decoding of image files, good and broken."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mutualign.data.folders import image_io
from mutualign.data.folders.image_io import decode_image, decode_rgb, decoding_bytes, image_shape
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from tests.data.folders.images import DAMAGED, FLOATS, GOOD, GRADIENT, encoded, png_header, write

PIXELS = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3) * 8
COLOUR = encoded(PIXELS)

# One format, one size, as in the released data sets -------------------------------------------------------------------


def test_a_png_has_its_pixels_from_bytes_and_from_a_file_and_grey_becomes_colour(tmp_path):
    (tmp_path / "a.png").write_bytes(COLOUR)
    for content in (COLOUR, tmp_path / "a.png"):
        found = decode_rgb(content, "here", "PNG", (2, 5))
        assert found.dtype == torch.uint8
        assert found.tolist() == PIXELS.tolist()
    grey = PIXELS[..., 0]
    assert decode_rgb(encoded(grey), "here", "PNG").tolist() == [[[v, v, v] for v in row] for row in grey.tolist()]
    assert decode_rgb(encoded(np.zeros((4, 9, 3), np.uint8), "JPEG"), "here", "JPEG").shape == (4, 9, 3)


def test_another_size_is_an_error_that_has_both_sizes():
    with pytest.raises(MutualignError, match=r"^x.png: an image of 2x5 pixels .*, expected 32x32$"):
        decode_rgb(COLOUR, "x.png", "PNG", (32, 32))


BAD = {
    "nothing": b"",
    "text": b"text",
    "cut in the pixels": COLOUR[:50],
    "cut after the pixels": COLOUR[:-20],
    "a bit flipped in the pixels": COLOUR[:48] + bytes([COLOUR[48] ^ 1]) + COLOUR[49:],
    "JPEG": encoded(PIXELS, "JPEG"),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_anything_but_a_whole_image_of_the_format_is_an_error(content):
    with pytest.raises(MutualignError, match=r"^x\.png: not a readable PNG image"):
        decode_rgb(content, "x.png", "PNG")


@given(st.integers(0, len(COLOUR) - 1), st.binary(min_size=1, max_size=4))
def test_a_damaged_png_has_the_right_pixels_or_is_an_error_of_ours(start, noise):
    try:
        found = decode_rgb(COLOUR[:start] + noise + COLOUR[start + len(noise) :], "here", "PNG", (2, 5))
    except MutualignError:
        return
    assert found.tolist() == PIXELS.tolist()


# Any format, brought to one size --------------------------------------------------------------------------------------


def decoded(content: bytes, channels: int, size: int = 6) -> np.ndarray:
    return decode_image(content, "x", ImageShape(channels, size, size)).numpy()


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF"])
def test_a_lossless_image_of_the_wanted_size_keeps_its_pixels(image_format):
    options = {"lossless": True} if image_format == "WEBP" else {}
    grey = Image.fromarray(GRADIENT)
    content = encoded(grey.convert("RGB") if image_format == "WEBP" else grey, image_format, **options)
    assert decoded(content, 3).tolist() == np.repeat(GRADIENT[..., None], 3, axis=2).tolist()


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("L", (6, 6), value) for value in (50, 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert set(decoded(content, 1).ravel()) == {50}


def test_formats_with_other_suffixes_are_read_if_pillow_can():
    assert {".jfif", ".ppm", ".pgm", ".gif"} <= image_io.SUFFIXES
    assert (".avif" in image_io.SUFFIXES) == ("AVIF" in image_io.FORMATS)
    if "AVIF" in image_io.FORMATS:
        assert abs(int(decoded(encoded(Image.new("L", (6, 6), 90), "AVIF"), 1)[3, 3, 0]) - 90) <= 2


def test_sixteen_bits_become_eight_by_a_division_by_257():
    content = encoded(GRADIENT.astype(np.uint16) * 257)
    assert image_shape(content, "x") == (1, 6, 6)
    assert decoded(content, 1)[..., 0].tolist() == GRADIENT.tolist()


def test_the_transparent_value_of_16_bit_grey_becomes_white():
    values = GRADIENT.astype(np.uint16) * 257
    found = decoded(encoded(Image.fromarray(values), transparency=int(values[0, 0])), 1)[..., 0]
    assert found.tolist() == np.where(values == values[0, 0], 255, GRADIENT).tolist()


def test_transparency_becomes_white_a_palette_is_looked_up_and_cmyk_becomes_colour():
    clear = np.zeros((6, 6, 4), np.uint8)
    clear[:, 3:] = (10, 20, 30, 255)
    found = decoded(encoded(clear), 3)
    assert found[0, [0, 5]].tolist() == [[255, 255, 255], [10, 20, 30]]
    palette = Image.new("P", (6, 6), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert decoded(encoded(palette), 3)[2, 2].tolist() == [9, 8, 7]
    cyan = encoded(Image.new("CMYK", (6, 6), (255, 0, 0, 0)), "TIFF")
    assert decoded(cyan, 3)[2, 2].tolist() == [0, 255, 255]


def without_adobe_marker(jpeg: bytes) -> bytes:
    """Drop the segment APP14, by which Adobe's programs say that CMYK is inverted."""
    start = jpeg.index(b"\xff\xee")
    assert jpeg[start + 4 : start + 9] == b"Adobe"
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def test_a_photo_of_any_kind_looks_like_the_same_photo_in_colour():
    """Each kind within a few values of the colours it was made from; a negative would be far off."""
    ramp = np.linspace(30, 220, 64, dtype=np.uint8)
    photo = np.stack([np.tile(ramp, (64, 1)), np.full((64, 64), 60, np.uint8), np.tile(ramp[:, None], 64)], axis=-1)
    colour, grey = Image.fromarray(photo), Image.fromarray(photo).convert("L")
    cmyk, values = colour.convert("CMYK"), np.asarray(grey)
    quality = {"quality": 95, "subsampling": 0}
    inverted = Image.merge("CMYK", [Image.eval(band, lambda value: 255 - value) for band in cmyk.split()])
    kinds = {
        "RGB JPEG": (colour, encoded(colour, "JPEG", **quality)),
        "Adobe's inverted CMYK JPEG": (colour, encoded(cmyk, "JPEG", **quality)),
        "CMYK JPEG": (colour, without_adobe_marker(encoded(inverted, "JPEG", **quality))),
        "CMYK TIFF": (colour, encoded(cmyk, "TIFF")),
        "palette GIF": (colour, encoded(colour.quantize(256), "GIF")),
        "PPM": (colour, encoded(colour, "PPM")),
        "grey JPEG": (grey, encoded(grey, "JPEG", **quality)),
        "PGM": (grey, encoded(grey, "PPM")),
        "grey with transparency": (grey, encoded(grey.convert("LA"))),
        "16-bit PNG": (grey, encoded(values.astype(np.uint16) * 257)),
        "16-bit PGM": (grey, b"P5 64 64 65535\n" + (values.astype(">u2") * 257).tobytes()),
        "16-bit TIFF": (grey, encoded(values.astype(np.uint16) * 257, "TIFF")),
    }
    for kind, (expected, content) in kinds.items():
        for side in (64, 224):  # photos that are too small are enlarged
            wanted = np.asarray(expected.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)).astype(int)
            found = decode_image(content, kind, ImageShape(3, side, side)).numpy()
            assert np.abs(found - wanted).mean() < 4, kind


WIDE = np.kron(np.array([[10, 90, 170, 250], [50, 130, 210, 30]], np.uint8), np.ones((8, 8), np.uint8))  # JPEG's blocks
UPRIGHT = {
    1: WIDE,
    2: np.fliplr(WIDE),
    3: np.rot90(WIDE, 2),
    4: np.flipud(WIDE),
    5: WIDE.T,
    6: np.rot90(WIDE, -1),
    7: np.rot90(WIDE, 2).T,
    8: np.rot90(WIDE),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_image_is_turned_upright_by_its_exif_orientation(image_format, orientation):
    exif, expected = Image.Exif(), UPRIGHT[orientation]
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(image_format, {})
    content = encoded(WIDE, image_format, exif=exif, **options)
    shape = ImageShape(1, *expected.shape)
    assert image_shape(content, "x")[1:] == expected.shape
    found = decode_image(content, "x", shape)[..., 0].numpy().astype(int)
    assert np.abs(found - expected).max() <= 2


def exif_of(*entries: tuple[int, int, int, bytes], values: bytes = b"") -> bytes:
    """EXIF data with entries (tag, type, count, four bytes), and values behind them, from byte 200 on."""
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    start = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body
    return b"Exif\0\0" + start.ljust(200, b"\0") + values


def short(value: int) -> bytes:
    return struct.pack("<HH", value, 0)


TURNED = (0x0112, 3, 1, short(6))
ODD_EXIF = {
    "a width in fractions of a pixel": exif_of(TURNED, (0x0100, 11, 1, struct.pack("<f", 1.5))),
    "a negative height": exif_of(TURNED, (0x0101, 9, 1, struct.pack("<i", -5))),
    "a number as text": exif_of(TURNED, (0x0102, 2, 4, b"abc\0")),
    "a fraction of zero": exif_of(TURNED, (0x9204, 10, 1, struct.pack("<I", 200)), values=struct.pack("<ii", -1, 0)),
    "an offset behind the end": exif_of(TURNED, (0x8769, 4, 1, struct.pack("<I", 60_000))),
    "two orientations": exif_of((0x0112, 3, 2, struct.pack("<HH", 6, 6))),
    "an orientation as text": exif_of((0x0112, 2, 2, b"6\0\0\0")),
    "an unknown orientation": exif_of((0x0112, 3, 1, short(9))),
    "cut off": exif_of(TURNED)[:20],
    "no EXIF data": b"Exif\0\0PK\3\4" + bytes(20),
}
SHOWN_TURNED = list(ODD_EXIF)[:6]


@pytest.mark.parametrize("name", ODD_EXIF)
def test_an_image_with_odd_exif_data_is_shown_as_viewers_do_without_a_warning(name):
    content = encoded(WIDE, "JPEG", quality=95, exif=ODD_EXIF[name])
    expected = UPRIGHT[6] if name in SHOWN_TURNED else WIDE
    with ThreadPoolExecutor(4) as pool:
        shapes = set(pool.map(lambda _: image_shape(content, "x"), range(50)))
        found = list(pool.map(lambda _: decode_image(content, "x", ImageShape(1, *expected.shape)), range(50)))
    assert shapes == {(1, *expected.shape)}
    assert all(np.abs(one[..., 0].numpy().astype(int) - expected).max() <= 2 for one in found)


def test_of_an_image_of_another_size_the_middle_square_is_scaled():
    wide = np.full((6, 18), 9, np.uint8)
    wide[:, 6:12] = GRADIENT
    assert decoded(encoded(wide), 1)[..., 0].tolist() == GRADIENT.tolist()
    assert set(decoded(encoded(Image.new("L", (50, 30), 77)), 1).ravel()) == {77}


@pytest.mark.parametrize("side", [9000, 40_000])
def test_a_pixel_bomb_is_refused_by_its_header(side):
    for read in (image_shape, lambda content, where: decode_image(content, where, ImageShape(1, 6, 6))):
        with pytest.raises(MutualignError, match=r"^bomb.png: .*(pixels|exceeds limit)"):
            read(png_header(side, side), "bomb.png")


@pytest.mark.parametrize("content", [GOOD[:-20], DAMAGED, b"no image", b"", FLOATS])
def test_a_broken_image_is_an_error_that_names_it(content):
    with pytest.raises(MutualignError, match=r"^x: "):
        decoded(content, 1)


def test_lack_of_memory_is_no_fault_of_the_image(monkeypatch):
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", no_memory)
    for read in (lambda: decode_rgb(GOOD, "x", "PNG"), lambda: image_shape(GOOD, "x"), lambda: decoded(GOOD, 1)):
        with pytest.raises(MemoryError):
            read()
    monkeypatch.undo()
    monkeypatch.setattr(Image.Image, "getexif", no_memory)
    with pytest.raises(MemoryError):
        decoded(GOOD, 1)


def test_the_memory_for_decoding_goes_by_the_pixels_that_the_header_claims(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(8000, 8000))
    assert decoding_bytes(tmp_path / "bomb.png") >= 4 * 3 * 8000 * 8000
    assert decoding_bytes(write(tmp_path / "small.png")) < 10_000
    (tmp_path / "text.png").write_text("no image")
    assert [decoding_bytes(tmp_path / name) for name in ("text.png", "absent.png", ".")] == [0, 0, 0]
