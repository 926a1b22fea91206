"""Downloads and caches that several processes want at once, or that a killed process left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mutualign.data.fetch import data_files as download
from mutualign.data.fetch.data_files import DataFile, require
from mutualign.errors import MutualignError
from tests.data.fetch.servers import Server, running_server

CONTENT = bytes(range(256)) * 4000  # about a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()

FETCH = """
import hashlib, sys
import torch
from pathlib import Path
from mutualign.data.cache import cached
from mutualign.data.fetch.data_files import DataFile, require
url, folder = sys.argv[1], Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
(path,) = require([DataFile({"a/file": %r}, (url,))], "a-task", folder)
built = cached("thing", lambda: {"x": torch.arange(1 << 20)})["x"]
print(hashlib.sha256(path.read_bytes()).hexdigest(), bool((built == torch.arange(1 << 20)).all()), flush=True)
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_server(CONTENT) as server:
        yield server


def start(url: str, folder: Path) -> subprocess.Popen[str]:
    """A process that will fetch the file, and build what the cache keeps, when it gets a line."""
    command = [sys.executable, "-c", FETCH % SHA256, url, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_that_race_for_one_folder_all_get_the_whole_file(tmp_path, server):
    racing = [start(server.url("good/file"), tmp_path / "data") for _ in range(2)]
    for each in racing:
        assert each.stdout.readline() == "ready\n"
    for each in racing:
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in racing:
        printed, _ = each.communicate(timeout=60)
        assert (each.returncode, printed) == (0, f"{SHA256} True\n")
    assert [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()] == ["file"]
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == ["thing.safetensors"]


def test_a_process_killed_in_a_download_leaves_nothing_that_is_used_and_the_next_begins_anew(tmp_path, server):
    killed = start(server.url("stalls/file"), tmp_path / "data")
    killed.stdout.readline()
    killed.stdin.write("go\n")
    killed.stdin.flush()
    until = time.monotonic() + 30
    while time.monotonic() < until and not any(path.stat().st_size for path in _files(tmp_path / "data")):
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    half = _files(tmp_path / "data")
    assert len(half) == 1
    assert 0 < half[0].stat().st_size < len(CONTENT)
    assert not (tmp_path / "data" / "a" / "file").exists()
    assert require([DataFile({"a/file": SHA256}, (server.url("good/file"),))], "a-task", tmp_path / "data") == [
        tmp_path / "data" / "a" / "file"
    ]
    assert (tmp_path / "data" / "a" / "file").read_bytes() == CONTENT


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_without_a_network_what_is_there_is_used_and_what_is_not_is_named(tmp_path, monkeypatch):
    def no_network(*arguments: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("mutualign.data.fetch.mirrors.PAUSE", 0.0)
    file = DataFile({"file": SHA256}, ("https://mirror.invalid/file",))
    with pytest.raises(MutualignError, match=r"1 file\(s\) missing(.|\n)*hint: +go online"):
        require([file], "a-task", tmp_path)
    (tmp_path / "file").write_bytes(CONTENT)
    with monkeypatch.context() as patched:
        patched.setattr(download, "_download", None)  # not even tried
        assert require([file], "a-task", tmp_path) == [tmp_path / "file"]
