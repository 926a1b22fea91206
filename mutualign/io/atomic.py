"""Files that are either written completely or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mutualign.errors import MutualignError


def write_atomically(path: Path, content: bytes, before_rename: Callable[[], None] = lambda: None) -> None:
    """Write beside, flush to disk, rename, flush the folder: after a crash there is the old file or the new one.

    Raises MutualignError if the disk is full or the place cannot be written; the old file is still there then.
    """
    beside = path.with_name(path.name + ".part")
    try:
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            before_rename()
            beside.replace(path)
        except OSError:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> MutualignError:
    """What to tell of a failed write."""
    do = "free space there" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "make the place writable"
    return MutualignError(
        f"{path}: cannot be written: {error.strerror}; nothing that was there is lost\n"
        f"  do       {do}, or choose another place"
    )
