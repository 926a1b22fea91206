"""Tensors built from data files once and kept in the user's cache folder, as safetensors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs
from torch import Tensor

from mutualign.io.atomic import open_atomically
from mutualign.io.tensors import pack, unpack


def cached(name: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors kept under a name; build and keep them if there are none.

    The name must contain everything that the tensors depend on. A file that is damaged, or whose tensors do not match
    its SHA-256, is built again. A cache that cannot be written is no error.
    """
    path = Path(platformdirs.user_cache_dir("mutualign")) / "built" / f"{name}.safetensors"
    if (kept := _load(path)) is not None:
        return kept
    tensors = {key: tensor.contiguous() for key, tensor in build().items()}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(path, durable=False) as file:
            file.write(pack(tensors, {}))
    return tensors


def _load(path: Path) -> dict[str, Tensor] | None:
    """Read a file that `cached` wrote; None if it is missing, damaged or of an older format."""
    try:
        return unpack(path, hashed=True)[0]
    except Exception:  # a damaged header may raise anything
        return None
