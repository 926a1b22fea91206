"""Files that a task needs: found in the data folder in any common layout, or downloaded, and always checked."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import platformdirs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mutualign.data.fetch.mirrors import Mirrors
from mutualign.errors import MutualignError
from mutualign.io.hashing import sha256_of
from mutualign.io.plugins import mutualign_command

DATA_VARIABLE = "MUTUALIGN_DATA"


@dataclass(frozen=True)
class DataFile:
    """A published file: `accepted` maps each of its possible places in the data folder to its SHA-256 there.

    A download goes to the first place; `mirrors` are tried in order.
    """

    accepted: dict[str, str]
    mirrors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The first of its places."""
        return next(iter(self.accepted))

    def find(self, folder: Path) -> tuple[Path, str] | None:
        """Return the file's path in a data folder and the SHA-256 that it should have, or None if it is missing."""
        for place, sha256 in self.accepted.items():
            if (folder / place).is_file():
                return folder / place, sha256
        return None


def data_folder(option: Path | None = None) -> Path:
    """Return the data folder: the option, else the environment variable MUTUALIGN_DATA, else the user's cache folder.

    Raises MutualignError if the option is not a folder.
    """
    if option is not None:
        if not option.is_dir():
            raise MutualignError(f"--data {option}: no such folder\n  hint:    create it, or give another one")
        return option
    if variable := os.environ.get(DATA_VARIABLE):
        return Path(variable).expanduser()
    return Path(platformdirs.user_cache_dir("mutualign")) / "data"


def fetch_command(task: str, folder: Path) -> str:
    """Return the command that downloads the files of a task, or of `all`, to a data folder."""
    return mutualign_command("data", "fetch", task, *([] if folder == data_folder() else ["--data", folder]))


def damaged(files: Sequence[DataFile], folder: Path) -> list[Path]:
    """Return the files that are there but do not have the published hash."""
    found = [place for file in files if (place := file.find(folder))]
    return [path for path, sha256 in found if sha256_of(path) != sha256]


def require(files: Sequence[DataFile], task: str, folder: Path) -> list[Path]:
    """Download missing files, check all, and return their paths.

    Raises MutualignError that names each missing or damaged file, the folder, and the sources.
    """
    missing = [file for file in files if file.find(folder) is None]
    if missing:
        failures = _download(missing, folder)
        if missing := [file for file in missing if file.find(folder) is None]:
            raise MutualignError(_missing_message(missing, failures, task, folder))
    if broken := damaged(files, folder):
        raise MutualignError(
            f"{len(broken)} damaged file(s) for the task {task}: the SHA-256 is not the published one\n"
            + _listing("damaged", [str(path) for path in broken])
            + f"\n  hint:    delete them and run `{fetch_command(task, folder)}`"
        )
    return [place[0] for file in files if (place := file.find(folder))]


def _download(files: Sequence[DataFile], folder: Path) -> list[str]:
    """Download files, mirror after mirror, and return the failures."""
    columns = (
        TextColumn("downloading"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[received]:.1f} MB"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    mirrors = Mirrors()
    with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(files), received=0.0)

        def received(count: int) -> None:
            progress.update(bar, received=progress.tasks[0].fields["received"] + count / 1e6)

        for file in files:
            progress.update(bar, description=file.name)
            mirrors.fetch(file.mirrors, file.accepted[file.name], folder / file.name, received)
            progress.advance(bar)
    return mirrors.failures


def _missing_message(missing: Sequence[DataFile], failures: Sequence[str], task: str, folder: Path) -> str:
    variable = os.environ.get(DATA_VARIABLE)
    parts = [
        _group(list(group)) for _, group in itertools.groupby(missing, lambda file: PurePosixPath(file.name).parent)
    ]
    return "\n".join(
        [
            f"{len(missing)} file(s) missing for the task {task}",
            *parts,
            f"  looked in {folder} ({DATA_VARIABLE} is {'set' if variable else 'unset'})",
            _listing("tried", failures or ["nothing: no mirror is known"]),
            f"  hint:    go online and run `{fetch_command(task, folder)}`, or put the files into the folder above, or",
            "           give another folder with --data, or try `--task digits`, which needs no files",
        ]
    )


def _group(files: Sequence[DataFile]) -> str:
    """Describe the missing files of one folder: names, sources, other possible places."""
    sources = dict.fromkeys(url.rpartition("/")[0] + "/" for file in files for url in file.mirrors)
    elsewhere = list(files[0].accepted)[1:]
    return "\n".join(
        [
            _listing("missing", [file.name for file in files], most=6),
            _listing("from", list(sources) or ["their publisher"]),
            *([_listing("or as", elsewhere)] if elsewhere else []),
        ]
    )


def _listing(title: str, lines: Sequence[str], most: int = 12) -> str:
    """Put lines under a title in the margin; if there are too many, the first ones and the last."""
    if len(lines) > most:
        lines = [*lines[: most - 1], f"... and {len(lines) - most + 1} more, up to {lines[-1]}"]
    return "\n".join(f"  {title if i == 0 else '':<8} {line}" for i, line in enumerate(lines))
