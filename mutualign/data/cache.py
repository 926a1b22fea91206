"""What was built once from the data files is kept in the user's cache folder, as safetensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
from torch import Tensor

from mutualign.io.tensors import pack, unpack


def cached(name: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors kept under a name, or built and kept now.

    A file that cannot be read, or whose tensors do not have the SHA-256 written with them, is built anew. The name
    must say all that the tensors depend on.
    """
    path = Path(platformdirs.user_cache_dir("mutualign")) / "built" / f"{name}.safetensors"
    if (kept := _load(path)) is not None:
        return kept
    tensors = {key: tensor.contiguous() for key, tensor in build().items()}
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(pack(tensors, {}))
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)  # a cache that cannot be written costs seconds the next time, nothing else
    return tensors


def _load(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file of `cached`'s, or nothing where it is absent, damaged, or of an earlier format."""
    try:
        return unpack(path, hashed=True)[0]
    except Exception:  # whatever a damaged header leads to, the answer is the same
        return None
