"""What was built once from the data files is kept in the user's cache folder, as safetensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def cached(name: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors kept under a name, or built and kept now. A file that cannot be read is built anew."""
    path = Path(platformdirs.user_cache_dir("mutualign")) / "built" / f"{name}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        tensors = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.part")
        save_file(tensors, beside)
        beside.replace(path)
    except OSError:
        pass  # a cache that cannot be written costs seconds the next time, nothing else
    return tensors
