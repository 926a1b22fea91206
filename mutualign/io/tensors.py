"""Tensors on disk: safetensors files that contain a SHA-256 of their contents."""

from __future__ import annotations

import hashlib
import math
import stat
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped, jaxtyped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

LARGEST_HEADER = 4 << 20  # bytes: names, types, shapes and metadata of some ten thousand tensors
MOST_TENSORS = 20_000  # ten times those of the largest networks that are trained here
MOST_VALUES = 1 << 48  # of a shape, sizes of 0 counted as 1: torch multiplies them in 64 bits
SHA256 = "sha256"


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file of tensors and metadata, with the SHA-256 of both in its header.

    A tensor with two names, such as a network that a method owns twice, is written twice.
    """
    dense, storages = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        dense[name] = tensor.detach().cpu().contiguous()
        if (storage := dense[name].untyped_storage().data_ptr()) in storages:  # which safetensors refuses
            dense[name] = dense[name].clone()
        storages.add(storage)
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


def check_layout(tensors: Mapping[str, Tensor], layout: type, sizes: Mapping[str, int]) -> None:
    """Raise ValueError that names the tensor unless each one in a layout exists, with its type and shape.

    `layout` is a TypedDict whose types are jaxtyping's; `sizes` are those of named axes that are known beforehand.
    Other tensors are ignored.

    >>> class Table(typing.TypedDict):
    ...     rows: Shaped[Tensor, "n 3"]
    >>> check_layout({"rows": torch.zeros(2, 4)}, Table, {})
    Traceback (most recent call last):
    ValueError: rows: float32 of shape [2, 4], expected Shaped[Tensor, 'n 3']
    """
    with jaxtyped("context"):
        axes: Any = Shaped[Tensor, " ".join(sizes)]
        isinstance(torch.empty(tuple(sizes.values()), device="meta"), axes)  # gives the named axes their sizes
        for name, expected in typing.get_type_hints(layout).items():
            if name not in tensors:
                raise ValueError(f"it has no tensor {name}")
            if not isinstance(found := tensors[name], expected):
                kind = str(found.dtype).removeprefix("torch.")
                known = "".join(f", {axis} = {size}" for axis, size in sizes.items())
                raise ValueError(f"{name}: {kind} of shape {list(found.shape)}, expected {expected.__name__}{known}")
