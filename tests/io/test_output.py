"""Outputs of commands: what may be written and replaced, and what never."""

from __future__ import annotations

import os
import re
import socket

import pytest

from mutualign.errors import MutualignError
from mutualign.io.output import check_output, write_output


@pytest.fixture
def run(tmp_path):
    """A run folder, as far as outputs are concerned."""
    for name in ("config.toml", "metrics.jsonl", "result.json", ".lock", "checkpoints/last.safetensors"):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"the run's")
    return tmp_path / "run"


def test_a_new_file_is_written_with_its_folders_and_an_old_one_is_replaced_only_by_force(tmp_path):
    path = tmp_path / "new" / "folder" / "out.csv"
    write_output(path, b"first")
    with pytest.raises(MutualignError, match=r"exists already\n  hint: .*--force"):
        write_output(path, b"second")
    assert path.read_bytes() == b"first"
    write_output(path, b"second", force=True)
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_checking_makes_nothing(tmp_path):
    check_output(tmp_path / "new" / "out.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["config.toml", "Result.JSON", "metrics.jsonl", ".lock", "checkpoints/new", "checkpoints"]
)
def test_a_runs_own_files_are_never_written(run, name):
    for force in (False, True):
        with pytest.raises(MutualignError, match=r"belongs to a run|is a folder"):
            write_output(run / name, b"x", force=force)
    (run.parent / "link").symlink_to(run)
    with pytest.raises(MutualignError, match=r"belongs to a run|is a folder"):
        write_output(run.parent / "link" / name, b"x", force=True)
    assert {path.read_bytes() for path in run.rglob("*") if path.is_file()} == {b"the run's"}
    write_output(run / "report.html", b"beside")


def test_an_input_is_never_written_by_whatever_name(tmp_path):
    table = tmp_path / "in.csv"
    table.write_bytes(b"input")
    (tmp_path / "soft.csv").symlink_to(table)
    os.link(table, tmp_path / "hard.csv")
    for name in ("in.csv", "soft.csv", "hard.csv", "../" + tmp_path.name + "/in.csv"):
        with pytest.raises(MutualignError, match="it is also an input"):
            write_output(tmp_path / name, b"x", inputs=[table], force=True)
    assert table.read_bytes() == b"input"


def test_devices_pipes_sockets_and_folders_are_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to(os.devnull)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "null", tmp_path / "socket", tmp_path / "folder"):
            kind = path.stat().st_mode
            with pytest.raises(
                MutualignError, match=f"{path.name}: cannot be written: it is (not a regular file|a fold)"
            ):
                write_output(path, b"x", force=True)
            assert path.stat().st_mode == kind


@pytest.mark.parametrize(
    ("name", "why"),
    [("file/out.csv", "is a file, not a folder"), ("a" * 300, "longer than 255 bytes"), ("loop", "a link to itself")],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, name, why):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(MutualignError, match=re.escape(why)):
        write_output(tmp_path / name, b"x")


def test_a_folder_without_permission_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # as for anyone but root
    with pytest.raises(MutualignError, match="no permission to write into"):
        check_output(tmp_path / "out.csv")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(MutualignError, match=r"No space left on device(.|\n)*free space"):
        write_output(path, b"new", force=True)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"
