"""Downloads from real servers on this machine: good, wrong, broken and silent ones."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mutualign.data.fetch import mirrors
from mutualign.data.fetch.mirrors import Mirrors
from mutualign.errors import MutualignError
from tests.data.fetch.servers import Server, running_server

CONTENT = bytes(range(256)) * 2000  # more than one piece
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(mirrors, "PAUSE", 0.0)
    monkeypatch.setattr(mirrors, "TIMEOUT", (2.0, 0.3))
    with running_server(CONTENT) as server:
        yield server


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def fetch(place: Path, *urls: str) -> tuple[bool, list[str]]:
    """Return what `fetch` returns, and the failures; the place must hold CONTENT or nothing, with no other file."""
    downloads = Mirrors()
    success = downloads.fetch(urls, SHA256, place)
    assert success == place.exists()
    assert not success or place.read_bytes() == CONTENT
    assert [path for path in place.parent.glob("*") if path != place] == []
    return success, downloads.failures


def test_a_good_mirror_gives_the_file_in_a_new_folder_and_tells_of_every_piece(tmp_path, server):
    pieces: list[int] = []
    place = tmp_path / "a" / "b" / "file"
    downloads = Mirrors()
    assert downloads.fetch([server.url("good/x")], SHA256, place, pieces.append)
    assert place.read_bytes() == CONTENT
    assert sum(pieces) == len(CONTENT)
    assert len(pieces) > 1


@pytest.mark.parametrize(
    ("kind", "message", "tries"),
    [
        ("wrong", SHA256, 1),
        ("absent", "404", 1),
        ("forbidden", "403", 1),
        ("busy", "503", 2),
        ("breaks", "IncompleteRead", 2),
        ("silent", "timed out", 2),
        ("stalls", "timed out", 2),
        ("flipped", SHA256, 1),
        ("short", SHA256, 1),
        ("long", SHA256, 1),
        ("empty", SHA256, 1),
        ("elsewhere", "No connection adapters were found for 'file:", 1),
    ],
)
def test_after_a_bad_mirror_comes_the_next_one(tmp_path, server, kind, message, tries):
    # another host: a silent one is not asked again
    with running_server(CONTENT) as other:
        success, failures = fetch(tmp_path / "data" / "file", server.url(f"{kind}/x"), other.url("good/x"))
        assert success
        assert server.asked == [f"/{kind}/x"] * tries
        assert other.asked == ["/good/x"]
        assert len(failures) == 1
        assert failures[0].startswith(server.url(f"{kind}/x: "))
        assert message in failures[0]


def test_a_mirror_that_sends_in_circles_is_left_soon(tmp_path, server):
    success, (failure,) = fetch(tmp_path / "data" / "file", server.url("loop/x"))
    assert not success
    assert "Exceeded 30 redirects" in failure
    assert server.asked == ["/loop/x"] * 31


@pytest.mark.parametrize("kind", ["busy-once", "breaks-once", "silent-once", "stalls-once"])
def test_a_fault_that_passes_costs_a_second_try_and_is_no_failure(tmp_path, server, kind):
    assert fetch(tmp_path / "data" / "file", server.url(f"{kind}/x")) == (True, [])
    assert server.asked == [f"/{kind}/x"] * 2


def test_no_good_mirror_leaves_no_file_and_tells_of_each(tmp_path, server):
    urls = [server.url("wrong/x"), server.url("absent/x"), server.url("busy/x")]
    success, failures = fetch(tmp_path / "data" / "file", *urls)
    assert not success
    assert [failure.split(": ")[0] for failure in failures] == urls


def test_a_host_that_does_not_answer_is_not_asked_for_the_next_file(tmp_path, server):
    dead = f"http://127.0.0.1:{closed_port()}/"
    downloads = Mirrors()
    assert not downloads.fetch([server.url("silent/1"), dead + "1"], SHA256, tmp_path / "1")
    assert not downloads.fetch([server.url("good/2"), dead + "2"], SHA256, tmp_path / "2")
    assert server.asked == ["/silent/1"] * 2
    assert len(downloads.failures) == 2


def test_a_mirror_that_never_ends_is_left(tmp_path, server, monkeypatch):
    monkeypatch.setattr(mirrors, "MAX_BYTES", len(CONTENT) - 1)
    success, failures = fetch(tmp_path / "data" / "file", server.url("good/x"))
    assert not success
    assert "more than 0 MiB" in failures[0]


def test_the_file_comes_as_published_and_is_not_unzipped_on_the_way(tmp_path, server):
    assert fetch(tmp_path / "data" / "file", server.url("zipped/x")) == (True, [])


def test_a_place_that_cannot_be_written_is_an_error_of_the_place_and_not_of_the_mirror(tmp_path, server):
    (tmp_path / "data").write_text("a file where the folder should be")
    downloads = Mirrors()
    with pytest.raises(MutualignError, match=r"cannot be written(.|\n)*--data"):
        downloads.fetch([server.url("good/x")], SHA256, tmp_path / "data" / "file")
    assert downloads.failures == []


def test_an_interrupted_download_leaves_nothing_behind(tmp_path, server):
    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    downloads = Mirrors()
    with pytest.raises(KeyboardInterrupt):
        downloads.fetch([server.url("good/x")], SHA256, tmp_path / "data" / "file", interrupt)
    assert list((tmp_path / "data").iterdir()) == []


def test_downloads_print_and_log_nothing_of_their_own(tmp_path, server, capfd, caplog):
    caplog.set_level(logging.INFO)
    fetch(tmp_path / "data" / "file", server.url("wrong/x"), server.url("good/x"))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
