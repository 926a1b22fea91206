"""Downloads: a file from one of its mirrors over HTTP, checked before it gets its name."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import requests

from mutualign.errors import MutualignError

TIMEOUT = (10.0, 30.0)  # seconds to connect, and of silence within an answer
TRIES = 2  # of a mirror that does not answer, breaks off, or is out of order
PAUSE = 1.0  # seconds before the next try
MAX_BYTES = 1 << 30  # of one file: a hundred times the largest that is asked for
PIECE = 1 << 17  # bytes written at a time

_SILENCE = (requests.ConnectionError, requests.Timeout)


class _WrongFile(Exception):
    """What came is not what was asked for."""


class Mirrors:
    """A session of downloads. It remembers what failed, and does not ask a host again that did not answer."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._silent_hosts: set[str] = set()
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"  # the file as published, not unzipped on the way

    def __enter__(self) -> Mirrors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.close()

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
                self._download(url, sha256, place, received)
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

    def _download(self, url: str, sha256: str, place: Path, received: Callable[[int], None]) -> None:
        """Download beside the place, check, rename. Whatever happens, no part of a file stays behind."""
        beside = place.with_name(f".{place.name}.{os.getpid()}.part")
        digest, size = hashlib.sha256(), 0
        try:
            with self._session.get(url, stream=True, timeout=TIMEOUT) as answer:
                answer.raise_for_status()
                place.parent.mkdir(parents=True, exist_ok=True)
                with beside.open("wb") as file:
                    for piece in answer.iter_content(PIECE):
                        size += len(piece)
                        if size > MAX_BYTES:
                            raise _WrongFile(f"more than {MAX_BYTES >> 20} MiB")
                        digest.update(piece)
                        file.write(piece)
                        received(len(piece))
            if digest.hexdigest() != sha256:
                raise _WrongFile(f"{size} bytes with the SHA-256 {digest.hexdigest()}, not {sha256}")
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)


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
