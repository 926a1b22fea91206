"""Files that a task needs: found in the data folder in any layout people have, or downloaded, always checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pooch
import requests
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mutualign.errors import MutualignError

DATA_VARIABLE = "MUTUALIGN_DATA"


@dataclass(frozen=True)
class DataFile:
    """One published file: `accepted` maps each place it may lie, relative to the data folder, to its SHA-256 there.

    The first place is where a download is put; `mirrors` are tried in order.
    """

    accepted: dict[str, str]
    mirrors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return next(iter(self.accepted))

    def find(self, folder: Path) -> tuple[Path, str] | None:
        """Where the file lies in a data folder, with the SHA-256 it should have there."""
        for place, sha256 in self.accepted.items():
            if (folder / place).is_file():
                return folder / place, sha256
        return None


def data_folder(option: Path | None = None) -> Path:
    """The data folder: the option, else the environment variable MUTUALIGN_DATA, else the user's cache folder."""
    if option is not None:
        if not option.is_dir():
            raise MutualignError(f"--data {option}: no such folder")
        return option
    if variable := os.environ.get(DATA_VARIABLE):
        return Path(variable)
    return Path(platformdirs.user_cache_dir("mutualign")) / "data"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(files: Sequence[DataFile], folder: Path) -> list[Path]:
    """The files that are there but do not have the hash they should have."""
    found = [place for file in files if (place := file.find(folder))]
    return [path for path, sha256 in found if sha256_of(path) != sha256]


def require(files: Sequence[DataFile], task: str, folder: Path) -> list[Path]:
    """The checked paths of all files, after downloading those that are missing.

    Raises MutualignError that names each file missing or damaged, where it was looked for, and what to do.
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
            + f"\n  do       delete them and run `mutualign data fetch {task}`"
        )
    return [place[0] for file in files if (place := file.find(folder))]


def _download(files: Sequence[DataFile], folder: Path) -> list[str]:
    """Download files, mirror after mirror; gives the failures. Gives up where no mirror of a file answers."""
    failures: list[str] = []
    columns = (
        TextColumn("downloading"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task("", total=len(files))
        for file in files:
            progress.update(bar, description=file.name)
            if not _download_one(file, folder, failures):
                break
            progress.advance(bar)
    return failures


def _download_one(file: DataFile, folder: Path, failures: list[str]) -> bool:
    place = folder / file.name
    for url in file.mirrors:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # pooch downloads beside, checks the hash, then renames.
            pooch.retrieve(
                url,
                known_hash=f"sha256:{file.accepted[file.name]}",
                fname=place.name,
                path=place.parent,
                downloader=pooch.HTTPDownloader(timeout=30),
            )
            return True
        except (requests.RequestException, OSError, ValueError) as error:
            failures.append(f"{url}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
    return False


def _missing_message(missing: Sequence[DataFile], failures: Sequence[str], task: str, folder: Path) -> str:
    variable = os.environ.get(DATA_VARIABLE)
    return "\n".join(
        [
            f"{len(missing)} file(s) missing for the task {task}",
            _listing("missing", [file.name for file in missing]),
            f"  looked in {folder} ({DATA_VARIABLE} is {'set' if variable else 'unset'})",
            _listing("tried", failures or ["nothing: no mirror is known"]),
            f"  do       go online and run `mutualign data fetch {task}`, or put the files there (get them from",
            f"           {missing[0].mirrors[0] if missing[0].mirrors else 'their publisher'}),",
            "           or give another folder with --data, or try `--task digits`, which needs no files",
        ]
    )


def _listing(title: str, lines: Sequence[str], most: int = 12) -> str:
    shown = [f"  {title:<8} {line}" for line in lines[:most]]
    return "\n".join([*shown, f"           and {len(lines) - most} more"] if len(lines) > most else shown)
