"""Downloads and caches that several processes want at once, or that a killed process left behind."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from mutualign.data.cache import cached
from mutualign.data.fetch import data_files as download
from mutualign.data.fetch.data_files import DataFile, require
from mutualign.errors import MutualignError
from tests.children import CONTEXT, finish, start
from tests.data.fetch.servers import Server, running_server

CONTENT = bytes(range(256)) * 4000  # about a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_server(CONTENT) as server:
        yield server


def fetch(url: str, folder: Path, environment: dict[str, str], link: Connection) -> None:
    """What a process does: fetch the file, and build what the cache keeps, when it is told to."""
    os.environ.update(environment)
    link.send("ready")
    link.recv()
    (path,) = require([DataFile({"a/file": SHA256}, (url,))], "a-task", folder)
    built = cached("thing", lambda: {"x": torch.arange(1 << 20)})["x"]
    link.send((hashlib.sha256(path.read_bytes()).hexdigest(), bool((built == torch.arange(1 << 20)).all())))


def start_fetching(url: str, folder: Path) -> tuple[BaseProcess, Connection]:
    """A process that is ready to fetch, and the link to it."""
    link, theirs = CONTEXT.Pipe()
    child = start(fetch, url, folder, dict(os.environ), theirs)
    theirs.close()  # or the end of the child would not be seen
    assert link.recv() == "ready"
    return child, link


def test_processes_that_race_for_one_folder_all_get_the_whole_file(tmp_path, server):
    racing = [start_fetching(server.url("good/file"), tmp_path / "data") for _ in range(2)]
    for _, link in racing:
        link.send("go")
    for child, link in racing:
        assert link.poll(60)
        assert link.recv() == (SHA256, True)
        assert finish(child) == 0
    assert [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()] == ["file"]
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == ["thing.safetensors"]


def test_a_process_killed_in_a_download_leaves_nothing_that_is_used_and_the_next_begins_anew(tmp_path, server):
    killed, link = start_fetching(server.url("stalls/file"), tmp_path / "data")
    link.send("go")
    until = time.monotonic() + 30
    while time.monotonic() < until and not any(path.stat().st_size for path in _files(tmp_path / "data")):
        time.sleep(0.02)
    killed.kill()
    killed.join()
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
