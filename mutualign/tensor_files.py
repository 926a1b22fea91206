"""Tensors on disk: safetensors files that carry a SHA-256 of all that they say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

LARGEST_HEADER = 4 << 20  # bytes: names, types, shapes and metadata of some ten thousand tensors
SHA256 = "sha256"


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of the tensors and the metadata, with the SHA-256 of both in its header."""
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(dense, metadata={**metadata, SHA256: digest(dense, metadata)})


def unpack(path: Path, *, hashed: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Its header is bounded before anything is allocated for it.

    Whatever was changed, cut or added since `pack` is found; with `hashed`, a file that `pack` did not write is refused
    too. Raises ValueError that says what is wrong, or OSError.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"a header of {length:,} bytes; {LARGEST_HEADER:,} at most are read")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    announced = metadata.pop(SHA256, None)
    if announced is None and hashed:
        raise ValueError("it carries no SHA-256")
    if announced is not None and announced != digest(tensors, metadata):
        raise ValueError("what it holds does not have the SHA-256 that it carries")
    return tensors, metadata


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256, in hexadecimal, of the tensors' names, types, shapes and bytes, and of the metadata; in any order."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for name, value in sorted((metadata or {}).items()):
        found.update(f"{name!r} {value!r}\n".encode())
    return found.hexdigest()
