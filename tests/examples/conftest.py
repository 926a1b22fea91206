"""Fixtures for the tests of examples: they run as users run them, in an empty folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """Import an example from its file."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_example(tmp_path: Path) -> Callable[..., list[str]]:
    """Run an example with warnings as errors, and return the lines it prints; it must leave its folder empty."""

    def run(name: str, *arguments: str, ignored: str = "", timeout: int = 280) -> list[str]:
        folder = tmp_path / "here"
        folder.mkdir()
        flags = ["-W", "error", *(["-W", f"ignore:{ignored}"] if ignored else [])]
        done = subprocess.run(
            [sys.executable, *flags, EXAMPLES / f"{name}.py", *arguments],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert list(folder.iterdir()) == []
        return done.stdout.splitlines()

    return run
