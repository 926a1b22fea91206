"""Downloads: a file from one of its mirrors, checked before it gets its name; pooch does the work of one download."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from mutualign.errors import MutualignError

TIMEOUT = (10.0, 30.0)  # seconds to connect, and of silence within an answer
TRIES = 2  # of a mirror that does not answer, breaks off, or is out of order
PAUSE = 1.0  # seconds before the next try
MAX_BYTES = 1 << 30  # of one file: a hundred times the largest that is asked for
PIECE = 1 << 17  # bytes written at a time

_SILENCE = (requests.ConnectionError, requests.Timeout)

pooch.get_logger().setLevel("WARNING")  # what it tells is told by the progress bar and by the errors here


class _WrongFile(Exception):
    """What came is not what was asked for."""


class Mirrors:
    """Downloads that remember what failed, and do not ask a host again that did not answer."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._silent_hosts: set[str] = set()

    def fetch(
        self, urls: Sequence[str], sha256: str, place: Path, received: Callable[[int], None] = lambda count: None
    ) -> bool:
        """Whether one of the mirrors gave the file; then it lies at its place, whole and with the right SHA-256.

        `received` is told the size of every piece, in bytes. Raises MutualignError where the place cannot be written.
        """
        return any(self._fetch_from(url, sha256, place, received) for url in urls)

    def _fetch_from(self, url: str, sha256: str, place: Path, received: Callable[[int], None]) -> bool:
        host = urlsplit(url).netloc
        if host in self._silent_hosts:
            return False
        for tries_left in reversed(range(TRIES)):
            try:
                _download(url, sha256, place, received)
                return True
            except (requests.RequestException, _WrongFile) as error:
                if _may_pass(error) and tries_left:
                    time.sleep(PAUSE)
                    continue
                if isinstance(error, _SILENCE):
                    self._silent_hosts.add(host)
                self.failures.append(f"{url}: {_in_short(error)}")
                break
            except OSError as error:
                raise MutualignError(
                    f"{place}: cannot be written: {error}\n"
                    "  do       make room or give the right to write there, or choose another folder with --data"
                ) from error
        return False


class _Pieces:
    """Where pooch tells of each piece that came: what it takes for a progress bar."""

    def __init__(self, received: Callable[[int], None]) -> None:
        self.total, self.size, self._received = 0, 0, received

    def update(self, count: int) -> None:
        if self.total:
            count = min(count, self.total - self.size)  # pooch tells the last piece as if it were a whole one
        self.size += count
        if self.size > MAX_BYTES:
            raise _WrongFile(f"more than {MAX_BYTES >> 20} MiB")
        self._received(count)

    def reset(self) -> None:
        """Called at the end, before a last update with the total, which has been told piece by piece."""
        self.size, self._received = 0, lambda count: None

    def close(self) -> None:
        """Called after the end."""


def _download(url: str, sha256: str, place: Path, received: Callable[[int], None]) -> None:
    """Download beside the place, check, rename. Whatever happens, no part of a file stays behind."""
    downloader = pooch.HTTPDownloader(
        progressbar=_Pieces(received),
        chunk_size=PIECE,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # the file as published, not unzipped on the way
    )
    try:
        pooch.retrieve(url, f"sha256:{sha256}", place.name, place.parent, downloader=downloader)
    except ValueError as error:
        if isinstance(error, requests.RequestException):
            raise
        raise _WrongFile(f"what came does not have the SHA-256 {sha256}") from error


def _in_short(error: Exception) -> str:
    """The fault itself, without the wrappings of the library."""
    reason = getattr(next(iter(error.args), None), "reason", None) or error
    return re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): | for url: .*", "", str(reason))[:200]


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed: silence, an answer that broke off, a server out of order or too busy."""
    if isinstance(error, requests.HTTPError):
        status: int = error.response.status_code
        return status == 429 or status >= 500  # too many requests, or a fault of the server's
    return isinstance(error, (*_SILENCE, requests.exceptions.ChunkedEncodingError))
