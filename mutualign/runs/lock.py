"""The lock of a run folder: one process at a time trains a run."""

from __future__ import annotations

import datetime
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mutualign.errors import MutualignError
from mutualign.io.atomic import cannot_write
from mutualign.io.file_lock import lock_open_file
from mutualign.io.typed import decode_typed, encode_json

LOCK = ".lock"  # file in the run folder
PATIENCE = 0.3  # seconds until a held lock counts as taken: `owner_of` holds it for a moment
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # of file systems that cannot lock


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock."""

    pid: int
    host: str
    since: str  # local time

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @classmethod
    def this_process(cls) -> Owner:
        """Describe the calling process."""
        return cls(os.getpid(), socket.gethostname(), datetime.datetime.now().astimezone().isoformat(" ", "seconds"))


def _pause() -> None:
    time.sleep(PATIENCE / 10)


@contextmanager
def locked(folder: Path, patience: float = PATIENCE, wait: Callable[[], None] = _pause) -> Iterator[None]:
    """Hold the lock of a run folder, after waiting for `patience` seconds at most, by calling `wait` again and again.

    It is released when the context ends, and by the system if the process dies. Raises MutualignError that names the
    owner if another process holds it, and if the folder cannot be written. On a file system that cannot lock files,
    nothing is locked.
    """
    path = folder / LOCK
    try:
        file = _acquire(path, patience, wait)
    except BlockingIOError:
        raise MutualignError(_in_use(folder, _read(path))) from None
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        try:
            os.ftruncate(file, 0)
            os.write(file, encode_json(Owner.this_process()).encode())
        except OSError as error:
            raise cannot_write(path, error) from error
        yield
    finally:
        with suppress(OSError):
            if os.path.samestat(os.fstat(file), path.stat()):  # and not that of a process which has broken this lock
                os.ftruncate(file, 0)  # Windows keeps a file that is open: an empty one has no owner
                path.unlink()  # while the lock is held: whoever waits for this file sees that it is gone
        os.close(file)


def owner_of(folder: Path) -> Owner | None:
    """Return the process that trains the run of a folder now; None if there is none."""
    path = folder / LOCK
    try:
        file = os.open(path, os.O_RDONLY | NO_LINKS)  # others' runs can be looked at, but not written to
    except OSError:
        return None
    try:
        lock_open_file(file, shared=True)
    except BlockingIOError:
        return _read(path)
    except OSError:
        return None
    finally:
        os.close(file)
    return None


def last_owner(folder: Path) -> Owner | None:
    """Return the process that died while it held the lock of a folder; None if the last one released it."""
    return _read(folder / LOCK) if owner_of(folder) is None else None


def _acquire(path: Path, patience: float, wait: Callable[[], None]) -> int:
    """Open and lock the file, again if its last owner deleted it in between. Raises BlockingIOError if it is taken."""
    deadline = time.monotonic() + patience
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o644)
        try:
            lock_open_file(file)
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except FileNotFoundError:
            os.close(file)
        except BlockingIOError:
            os.close(file)
            if time.monotonic() > deadline:
                raise
            wait()
        except OSError as error:
            if error.errno in NO_LOCKS:
                return file
            os.close(file)
            raise
        else:
            os.close(file)


def _read(path: Path) -> Owner | None:
    try:
        return decode_typed(path.read_text(encoding="utf-8"), Owner, str(path))
    except (OSError, ValueError, MutualignError):
        return None  # its owner is about to write it


def _in_use(folder: Path, owner: Owner | None) -> str:
    who = owner or "a process that has just started"
    return (
        f"{folder} is in use by another process\n"
        f"  held by  {who}\n"
        f"  hint:    wait until it ends, or stop it; if its computer is gone for good, delete {folder / LOCK}"
    )
