"""The IDX format of the original MNIST files: an array, or an error that names the file and the fault."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from mutualign.errors import MutualignError

MAX_BYTES = 1 << 30  # of one file, uncompressed: twenty times the largest of MNIST's
MAX_RANK = 8


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """The array of an IDX file of unsigned bytes, gzipped or not.

    Raises MutualignError naming the file for anything else: another type, a size that does not match the header, a
    damaged or oversized stream.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MutualignError(f"{path}: cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise MutualignError(f"{path}: holds more than {MAX_BYTES >> 20} MiB; not a file of this kind")
    try:
        return parse_idx(content)
    except MutualignError as error:
        raise MutualignError(f"{path}: {error}") from error


def parse_idx(content: bytes) -> UInt8[Tensor, "..."]:
    """The array in the bytes of an IDX file: 0 0, type 8 (unsigned byte), rank, big-endian sizes, then the values."""
    header = io.BytesIO(content)
    magic = header.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise MutualignError(f"not an IDX file: begins with {magic.hex(' ') or 'nothing'}, expected 00 00")
    if magic[2] != 8:
        raise MutualignError(f"IDX type 0x{magic[2]:02x} is not supported, only 0x08 (unsigned bytes)")
    rank = magic[3]
    if not 1 <= rank <= MAX_RANK:
        raise MutualignError(f"IDX header announces {rank} dimensions, expected 1 to {MAX_RANK}")
    sizes_raw = header.read(4 * rank)
    if len(sizes_raw) < 4 * rank:
        raise MutualignError(f"IDX header is cut off: {rank} sizes announced, {len(sizes_raw)} bytes of them there")
    sizes = tuple(int(size) for size in np.frombuffer(sizes_raw, ">u4"))
    expected, found = math.prod(sizes), len(content) - header.tell()
    if expected != found:
        raise MutualignError(f"IDX header announces {sizes} = {expected} bytes, the file holds {found}")
    if expected == 0:
        raise MutualignError(f"IDX header announces {sizes}: no values at all")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header.tell()).view(sizes)
