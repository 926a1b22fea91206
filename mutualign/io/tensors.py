"""Tensors on disk: safetensors files that contain a SHA-256 of their contents."""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

LARGEST_HEADER = 4 << 20  # bytes: names, types, shapes and metadata of some ten thousand tensors
MOST_TENSORS = 20_000  # ten times those of the largest networks that are trained here
MOST_VALUES = 1 << 48  # of a shape, sizes of 0 counted as 1: torch multiplies them in 64 bits
SHA256 = "sha256"


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file of tensors and metadata, with the SHA-256 of both in its header."""
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(dense, metadata={**metadata, SHA256: digest(dense, metadata)})


def unpack(path: Path, *, hashed: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    The header is checked against the file's size before anything is allocated, by safetensors: tensors must fill the
    file without overlaps or holes, and have the bytes that type and shape need. Any change since `pack` is detected.
    With `hashed`, a file without a SHA-256 is refused too. Raises ValueError that says what is wrong, or OSError.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"a header of {length:,} bytes; {LARGEST_HEADER:,} at most are read")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            names = list(opened.keys())
            if len(names) > MOST_TENSORS:
                raise ValueError(f"{len(names):,} tensors; {MOST_TENSORS:,} at most are read")
            for name in names:
                if math.prod(max(size, 1) for size in opened.get_slice(name).get_shape()) > MOST_VALUES:
                    raise ValueError(f'tensor "{name[:80]}" has too large a shape')
            tensors = {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    announced = metadata.pop(SHA256, None)
    if announced is None and hashed:
        raise ValueError("it has no SHA-256")
    if announced is not None and announced != digest(tensors, metadata):
        raise ValueError("its contents do not have the SHA-256 in its header")
    return tensors, metadata


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Return the SHA-256, in hexadecimal, of names, types, shapes, bytes and metadata; their order does not matter."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for name, value in sorted((metadata or {}).items()):
        found.update(f"{name!r} {value!r}\n".encode())
    return found.hexdigest()
