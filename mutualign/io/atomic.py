"""Files that are either written completely or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from mutualign.errors import MutualignError

PART = ".part"  # ends the name of a file that is being written
ABANDONED = 3600.0  # seconds without a write after which a part is a leftover of a killed process
BINARY = getattr(os, "O_BINARY", 0)  # or Windows changes the ends of lines
LONGEST_STEM = 200  # bytes of the final name that the name of a part starts with; a name has 255 at most

_lasting = ContextVar("lasting", default=True)  # whether files are to survive a power cut


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Context of a new folder that is removed at its end; meanwhile no file is flushed to disk, which takes time."""
    with tempfile.TemporaryDirectory() as folder:
        before = _lasting.set(False)
        try:
            yield Path(folder)
        finally:
            _lasting.reset(before)


def files_last() -> bool:
    """Whether files that are written now are to stay: not within `temporary_folder`."""
    return _lasting.get()


def flush_to_disk(number: int) -> None:
    """Flush an open file or folder to disk, except within `temporary_folder`."""
    if files_last():
        os.fsync(number)


def write_atomically(path: Path, content: bytes, before_rename: Callable[[], None] = lambda: None) -> None:
    """Write a file so that after a crash there is the old file or the new one, and flush it to disk.

    Raises MutualignError if the disk is full or the place cannot be written; the old file is still there then.
    """
    try:
        with open_atomically(path, before_rename) as file:
            file.write(content)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def open_atomically(
    path: Path, before_rename: Callable[[], None] = lambda: None, *, durable: bool = True
) -> Iterator[BinaryIO]:
    """Open a new file for writing; it gets its name when the block ends, and is removed if the block fails.

    Until then it is in the same folder under an unpredictable name that ends in `.part`. An existing file or link of
    that name is never opened. Parts that killed processes left of the same file are removed after an hour. With
    `durable`, file and folder are flushed to disk. Raises OSError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open_atomically(Path(folder) / "numbers") as file:
    ...         _ = file.write(b"1 2 3")
    ...     [path.name for path in Path(folder).iterdir()]
    ['numbers']
    """
    stem = os.fsencode(path.name)[:LONGEST_STEM].decode("utf-8", "ignore")
    _remove_abandoned(path.parent, stem)
    part = path.with_name(f"{stem}.{secrets.token_hex(8)}{PART}")
    number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)  # O_EXCL follows no link
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            if durable:
                flush_to_disk(file.fileno())
        before_rename()
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    if durable and hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            flush_to_disk(folder)
        finally:
            os.close(folder)


def _remove_abandoned(folder: Path, stem: str) -> None:
    """Remove the parts of a file that nobody has written to for an hour."""
    with suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith(f"{stem}.") and entry.name.endswith(PART):
                with suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED:
                        Path(entry.path).unlink()


def cannot_write(path: Path, error: OSError) -> MutualignError:
    """Describe a failed write, with advice."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return MutualignError(
        f"{path}: cannot be written: {error.strerror}; nothing that was there is lost\n"
        f"  hint:    {'free space there' if full else 'make the place writable'}, or choose another place"
    )
