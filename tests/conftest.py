"""What all tests share: shapes in annotations are enforced, one thread, a cache of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("mutualign", "beartype.beartype")  # before the first import of the package

import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def real_data() -> Path:
    """The folder of the real data files; tests that need it are skipped, and say so, where there is none."""
    folder = os.environ.get("MUTUALIGN_DATA")
    if not folder:
        pytest.skip("MUTUALIGN_DATA is not set: the real MNIST and BSDS500 files are needed")
    return Path(folder)
