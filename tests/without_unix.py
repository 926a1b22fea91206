"""Run commands without what only Unix has: `python -m tests.without_unix`, with lines of arguments on standard input.

What differs on Windows and can be had on Linux: modules, flags and signals are absent; folders cannot be opened; a file
that this process has open or mapped can be neither removed nor replaced; a locked byte belongs to one process.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

# Loaded before anything is taken away: these have code of their own for Windows.
import joblib
import lightning_fabric
import matplotlib.pyplot as plt
import safetensors.torch
import sklearn.linear_model
import torch
import tyro

LOADED = (joblib, lightning_fabric, plt, safetensors.torch, sklearn.linear_model, torch, tyro)


def msvcrt() -> ModuleType:
    """The module by which Windows locks a byte of a file."""
    import fcntl

    def locking(number: int, mode: int, count: int) -> None:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error

    module = ModuleType("msvcrt")
    module.__dict__.update(LK_NBLCK=2, locking=locking)
    return module


def take_away_unix() -> None:
    """From now on, this process is without what Windows lacks."""
    sys.modules["msvcrt"] = msvcrt()
    for module in ("fcntl", "grp", "pwd", "resource", "termios"):
        sys.modules[module] = None  # type: ignore[assignment]
    for flag in ("O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
        delattr(os, flag)
    for name in [name for name in dir(signal) if name.startswith("SIG") and not name.startswith("SIG_")]:
        if name not in ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"):
            delattr(signal, name)
    shutil._use_fd_functions = False  # type: ignore[attr-defined]

    def open_file(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if not isinstance(path, int) and Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, flags, *args, **kwargs)

    def unless_open(change: Any, place: int) -> Any:
        def changed(*paths: Any, **kwargs: Any) -> None:
            if os.path.lexists(paths[place]) and _in_use(Path(paths[place])):
                raise PermissionError(errno.EACCES, "The process cannot access the file", str(paths[place]))
            change(*paths, **kwargs)

        return changed

    really_open, os.open = os.open, open_file
    os.unlink = os.remove = unless_open(os.unlink, 0)
    os.replace, os.rename = unless_open(os.replace, 1), unless_open(os.rename, 1)


def _in_use(path: Path) -> bool:
    """Whether this process has a regular file open or mapped."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return False
    for number in Path("/proc/self/fd").iterdir():
        try:
            if os.path.samestat(os.fstat(int(number.name)), status):
                return True
        except OSError:
            continue  # that of the listing itself
    return any(line.endswith(f" {path.resolve()}\n") for line in Path("/proc/self/maps").open(encoding="utf-8"))


def main() -> None:
    take_away_unix()
    from mutualign.cli.app import main as command

    for line in sys.stdin:
        sys.argv = ["mutualign", *shlex.split(line)]
        command()


if __name__ == "__main__":
    main()
