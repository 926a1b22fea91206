"""Files written completely or not at all: under unpredictable names that follow no link, with no leftovers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mutualign.io.atomic import ABANDONED, open_atomically, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_when_it_is_complete(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    parts = set()
    for content in (b"new", b"newer"):
        with open_atomically(path) as file:
            file.write(content)
            (part,) = set(names(tmp_path)) - {"file"}
            parts.add(part)
            assert path.read_bytes() != content
        assert path.read_bytes() == content
    assert len(parts) == 2  # the names cannot be predicted
    assert all(part.startswith("file.") and part.endswith(".part") for part in parts)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_file_and_no_part(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fill() -> None:
        with open_atomically(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fill()
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["file"])


def test_links_and_pipes_in_the_way_are_neither_followed_nor_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("mutualign.io.atomic.secrets.token_hex", lambda count: "known")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (tmp_path / "file.known.part").symlink_to(secret)
    with pytest.raises(FileExistsError), open_atomically(tmp_path / "file"):
        pass
    assert secret.read_bytes() == b"secret"
    os.mkfifo(tmp_path / "other.known.part")
    with pytest.raises(FileExistsError), open_atomically(tmp_path / "other"):
        pass


def test_parts_of_killed_processes_are_removed_after_an_hour_and_those_of_running_ones_are_not(tmp_path):
    old, fresh, other = (tmp_path / name for name in ("file.aa.part", "file.bb.part", "other.cc.part"))
    for part in (old, fresh, other):
        part.write_bytes(b"half")
    for part in (old, other):
        os.utime(part, (time.time() - ABANDONED - 60,) * 2)
    write_atomically(tmp_path / "file", b"content")
    assert names(tmp_path) == ["file", "file.bb.part", "other.cc.part"]


def test_the_longest_name_can_be_written_and_has_the_usual_permissions(tmp_path):
    for name in ("x" * 255, "é" * 127):
        write_atomically(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode
