"""Tensors on disk: safetensors files that carry a SHA-256 of all that they say."""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mutualign.io.text import parse_json

LARGEST_HEADER = 4 << 20  # bytes: names, types, shapes and metadata of some ten thousand tensors
MOST_TENSORS = 20_000  # ten times those of the largest networks that are trained here
MOST_VALUES = 1 << 48  # of a shape, sizes of 0 counted as 1: torch multiplies them in 64 bits
BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2} | {
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip  # of a value, by its type in the header
SHA256 = "sha256"


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of the tensors and the metadata, with the SHA-256 of both in its header."""
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(dense, metadata={**metadata, SHA256: digest(dense, metadata)})


def unpack(path: Path, *, hashed: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Before anything is allocated, its header must agree with its size.

    Whatever was changed, cut or added since `pack` is found; with `hashed`, a file that `pack` did not write is refused
    too. Raises ValueError that says what is wrong, or OSError.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError(f"a header of {length:,} bytes; {LARGEST_HEADER:,} at most are read")
        _check_header(file.read(length), status.st_size)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    announced = metadata.pop(SHA256, None)
    if announced is None and hashed:
        raise ValueError("it carries no SHA-256")
    if announced is not None and announced != digest(tensors, metadata):
        raise ValueError("what it holds does not have the SHA-256 that it carries")
    return tensors, metadata


def _check_header(header: bytes, size: int) -> None:
    """Raise ValueError unless the tensors of a header fill a file of `size` bytes, each byte once."""
    about = parse_json(header.decode("utf-8"))
    if not isinstance(about, dict):
        raise ValueError("its header is no table")
    tensors = {name: tensor for name, tensor in about.items() if name != "__metadata__"}
    if len(tensors) > MOST_TENSORS:
        raise ValueError(f"{len(tensors):,} tensors; {MOST_TENSORS:,} at most are read")
    places = sorted(_place(name, tensor) for name, tensor in tensors.items())
    end = 0
    for begin, after, name in places:
        if begin != end:
            raise ValueError(f'tensor "{name[:80]}" begins at byte {begin}, the one before it ends at {end}')
        end = after
    if 8 + len(header) + end != size:
        raise ValueError(f"its header tells of {8 + len(header) + end:,} bytes, the file has {size:,}")


def _place(name: str, tensor: Any) -> tuple[int, int, str]:
    """First byte, byte after the last, and name of a tensor, which must have as many as its type and shape need."""
    try:
        shape, (begin, end), each = tensor["shape"], tensor["data_offsets"], BYTES[tensor["dtype"]]
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or math.prod(max(number, 1) for number in shape) > MOST_VALUES:
        raise ValueError(f'tensor "{name[:80]}" has no type, shape and place that can be read')
    if end - begin != each * math.prod(shape):
        raise ValueError(f'tensor "{name[:80]}" has {end - begin} bytes, its type and shape need another number')
    return begin, end, name


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256, in hexadecimal, of the tensors' names, types, shapes and bytes, and of the metadata; in any order."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for name, value in sorted((metadata or {}).items()):
        found.update(f"{name!r} {value!r}\n".encode())
    return found.hexdigest()
