"""Locks of open files, on every system."""

from __future__ import annotations

import os

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock

    def _lock(number: int, shared: bool) -> None:
        flock(number, (LOCK_SH if shared else LOCK_EX) | LOCK_NB)

except ModuleNotFoundError:  # on Windows
    from msvcrt import LK_NBLCK, locking  # type: ignore[attr-defined]

    FAR = 1 << 30  # the place of the byte that is locked: nobody else may read it

    def _lock(number: int, shared: bool) -> None:
        place = os.lseek(number, 0, os.SEEK_CUR)
        try:
            os.lseek(number, FAR, os.SEEK_SET)
            locking(number, LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from error
        finally:
            os.lseek(number, place, os.SEEK_SET)


def lock_open_file(number: int, *, shared: bool = False) -> None:
    """Lock an open file for this process until it is closed, without waiting.

    Of `shared` locks there may be several at a time, except on Windows; they need no permission to write.
    Raises BlockingIOError if another process has locked the file, and OSError if its file system has no locks.
    """
    _lock(number, shared)
