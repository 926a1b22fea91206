"""Downloads: a file from one of its mirrors, checked before it gets its name; pooch does a single download."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from mutualign.errors import MutualignError

TIMEOUT = (10.0, 30.0)  # seconds: to connect, and between two pieces of an answer
TRIES = 2  # per mirror that does not answer, breaks off, or has a server error
PAUSE = 1.0  # seconds before the next try
MAX_BYTES = 1 << 30  # of one file: a hundred times the largest one needed
PIECE = 1 << 17  # bytes written at a time

_SILENCE = (requests.ConnectionError, requests.Timeout)

pooch.get_logger().setLevel("WARNING")  # the progress bar and the errors here say the same


class _WrongFile(Exception):
    """The server sent another file than expected."""


class Mirrors:
    """Downloads that collect failures and skip a host that did not answer."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._silent_hosts: set[str] = set()

    def fetch(
        self, urls: Sequence[str], sha256: str, place: Path, received: Callable[[int], None] = lambda count: None
    ) -> bool:
        """Download a file to its place from the first mirror that has it; return whether one had.

        The file gets its name only when its SHA-256 is right. `received` is called with the size of every piece, in
        bytes. Raises MutualignError if the place cannot be written.
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
                    "  hint:    free space or make the place writable, or choose another folder with --data"
                ) from error
        return False


class _Pieces:
    """Receives the size of each piece from pooch, which takes it for a progress bar."""

    def __init__(self, received: Callable[[int], None]) -> None:
        self.total, self.size, self._received = 0, 0, received

    def update(self, count: int) -> None:
        if self.total:
            count = min(count, self.total - self.size)  # pooch reports the last piece as if it were a full one
        self.size += count
        if self.size > MAX_BYTES:
            raise _WrongFile(f"more than {MAX_BYTES >> 20} MiB")
        self._received(count)

    def reset(self) -> None:
        """Called at the end, before an update with the total, which was counted already."""
        self.size, self._received = 0, lambda count: None

    def close(self) -> None:
        """Called after the end; nothing to do."""


def _download(url: str, sha256: str, place: Path, received: Callable[[int], None]) -> None:
    """Download to a temporary file, check, rename; the temporary file is removed in any case."""
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
        raise _WrongFile(f"the file does not have the SHA-256 {sha256}") from error


def _in_short(error: Exception) -> str:
    """Return the fault itself, without what the library wraps it in."""
    reason = getattr(next(iter(error.args), None), "reason", None) or error
    return re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): | for url: .*", "", str(reason))[:200]


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed: no answer, an answer that broke off, a server that fails or is busy."""
    if isinstance(error, requests.HTTPError):
        status: int = error.response.status_code
        return status == 429 or status >= 500  # too many requests, or a server error
    return isinstance(error, (*_SILENCE, requests.exceptions.ChunkedEncodingError))
