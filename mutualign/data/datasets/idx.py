"""The IDX format of the original MNIST files: arrays of bytes, gzipped or not."""

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

MAX_BYTES = 1 << 30  # of one file, uncompressed: twenty times the largest file of MNIST
MAX_RANK = 8


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Raises MutualignError, naming the file, if the type is another one, the size does not match the header, or the
    stream is damaged or too large.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MutualignError(f"{path}: cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise MutualignError(f"{path}: holds more than {MAX_BYTES >> 20} MiB; not a file of MNIST")
    try:
        return parse_idx(content)
    except MutualignError as error:
        raise MutualignError(f"{path}: {error}") from error


def parse_idx(content: bytes) -> UInt8[Tensor, "..."]:
    """Parse an IDX file: bytes 0 0, type 8 (unsigned byte), rank, big-endian sizes, then the values."""
    header = io.BytesIO(content)
    magic = header.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise MutualignError(f"not an IDX file: it starts with {magic.hex(' ') or 'nothing'}, expected 00 00")
    if magic[2] != 8:
        raise MutualignError(f"IDX type 0x{magic[2]:02x} is not supported, only 0x08 (unsigned bytes)")
    rank = magic[3]
    if not 1 <= rank <= MAX_RANK:
        raise MutualignError(f"IDX header has {rank} dimensions, expected 1 to {MAX_RANK}")
    sizes_raw = header.read(4 * rank)
    if len(sizes_raw) < 4 * rank:
        raise MutualignError(f"IDX header is cut off: expected {rank} sizes, found {len(sizes_raw)} bytes of them")
    sizes = tuple(int(size) for size in np.frombuffer(sizes_raw, ">u4"))
    expected, found = math.prod(sizes), len(content) - header.tell()
    if expected != found:
        raise MutualignError(f"IDX header says {sizes} = {expected} bytes, the file holds {found}")
    if expected == 0:
        raise MutualignError(f"IDX header says {sizes}: no values")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header.tell()).view(sizes)
