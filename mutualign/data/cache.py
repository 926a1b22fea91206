"""What was built once from the data files is kept in the user's cache folder, as safetensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def cached(name: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors kept under a name, or built and kept now.

    A file that cannot be read, or whose tensors do not have the fingerprint written with them, is built anew. The name
    must say all that the tensors depend on.
    """
    path = Path(platformdirs.user_cache_dir("mutualign")) / "built" / f"{name}.safetensors"
    if (kept := _load(path)) is not None:
        return kept
    tensors = {key: tensor.contiguous() for key, tensor in build().items()}
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, beside, metadata={"fingerprint": fingerprint(tensors)})
        beside.replace(path)
    except (OSError, SafetensorError):  # a full disk is a SafetensorError
        beside.unlink(missing_ok=True)  # a cache that cannot be written costs seconds the next time, nothing else
    return tensors


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of the tensors' names, types, shapes and bytes; their order does not matter."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file of `cached`'s, or nothing where it is absent, damaged, or of an earlier format."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            announced = (file.metadata() or {}).get("fingerprint")
    except Exception:  # whatever a damaged header leads to, the answer is the same
        return None
    return tensors if fingerprint(tensors) == announced else None
