"""Folders of images that most tests start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.folders.images import write


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two classes of twenty grey images, distinct in brightness, and ten colour images of both."""
    for number in range(20):
        write(tmp_path / "source" / "dark" / f"{number}.png", 30 + number)
        write(tmp_path / "source" / "light" / f"{number}.png", 200 + number)
    for number in range(10):
        write(tmp_path / "target" / "deep" / f"{number}.png", 20 * number + 20, mode="RGB")
        write(tmp_path / "test" / ("dark" if number < 5 else "light") / f"{number}.png", 20 * number + 21, mode="RGB")
    return tmp_path
