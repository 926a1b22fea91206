"""Outputs of commands: new files, or old ones with `--force`; never an input, a device or a run's own file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from mutualign.errors import MutualignError
from mutualign.io.atomic import write_atomically

# Of a run folder: what reports and exports put beside these is not the run's own.
RUN_FILES = frozenset({"config.toml", "metrics.jsonl", "result.json", "failure.txt"})
RUN_FOLDERS = frozenset({"checkpoints"})
LONGEST_NAME = 255  # bytes, on common file systems


def check_output(path: Path, *, inputs: Iterable[Path] = (), force: bool = False) -> Path:
    """Return where an output really goes (links resolved), after checking that it may be written there.

    Call it before the work, so that nothing is computed in vain. Raises MutualignError if the path is one of the
    inputs, one of a run's own files, a folder or a device; if it exists and `force` is off; and if its folder cannot be
    made or written.
    """
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise _refusal(path, f"its name is longer than {LONGEST_NAME} bytes")
    try:
        real = Path(os.path.realpath(path))
        if belongs_to_run(real):
            raise _refusal(path, "it belongs to a run")
        if real.is_symlink():
            raise _refusal(path, "it is a link to itself")
        if real.exists():
            _check_existing(path, real, inputs, force)
        folder = next(place for place in real.parents if place.exists())
    except OSError as error:
        raise _refusal(path, str(error.strerror)) from error
    if not folder.is_dir():
        raise _refusal(path, f"{folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refusal(path, f"no permission to write into {folder}")
    return real


def write_output(path: Path, content: bytes, *, inputs: Iterable[Path] = (), force: bool = False) -> None:
    """Write an output completely or not at all, and make the folders above it.

    Raises MutualignError as `check_output` does, and if the disk is full.
    """
    real = check_output(path, inputs=inputs, force=force)
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(path, str(error.strerror)) from error
    write_atomically(real, content)


def belongs_to_run(path: Path) -> bool:
    """Whether a path, with links resolved, is one of a run's own files: its config, records, result or checkpoints."""

    def is_run(folder: Path) -> bool:
        return (folder / "config.toml").is_file()

    if is_run(path.parent) and (path.name.casefold() in RUN_FILES or path.name.startswith(".")):
        return True
    return any(folder.name.casefold() in RUN_FOLDERS and is_run(folder.parent) for folder in path.parents)


def _check_existing(path: Path, real: Path, inputs: Iterable[Path], force: bool) -> None:
    mode = real.stat().st_mode
    if stat.S_ISDIR(mode):
        raise _refusal(path, "it is a folder")
    if not stat.S_ISREG(mode):
        raise _refusal(path, "it is not a regular file")
    for one in inputs:
        if one.exists() and one.samefile(real):
            raise _refusal(path, "it is also an input")
    if not force:
        raise MutualignError(f"{path} exists already\n  hint:    choose another name, or replace it with --force")


def _refusal(path: Path, why: str) -> MutualignError:
    return MutualignError(f"{path}: cannot be written: {why}\n  hint:    choose another place")
