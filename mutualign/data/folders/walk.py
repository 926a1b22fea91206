"""Walking through a folder of images: links are followed, and what is skipped is counted."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mutualign.data.folders.hidden import is_hidden
from mutualign.data.folders.image_io import SUFFIXES
from mutualign.errors import MutualignError

MOST_FILES = 20_000_000  # links may make one folder appear any number of times
HEIC = "photos in .heic need `pip install pillow-heif` and --plugin pillow_heif.HeifImagePlugin"


@dataclass
class Skipped:
    """What a listing leaves out: other files by extension, broken links, and links back to a folder above."""

    other: Counter[str] = field(default_factory=Counter)
    broken: list[Path] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)

    def __len__(self) -> int:
        return self.other.total() + len(self.broken) + len(self.loops)

    def __str__(self) -> str:
        """One line, empty if nothing was skipped."""
        parts = []
        if self.other:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.other.items()))
            parts.append(f"{self.other.total():,} other file(s): {kinds}")
            parts += [HEIC] if {".heic", ".heif"} & {kind.lower() for kind in self.other} else []
        for paths, kind in ((self.broken, "broken link(s)"), (self.loops, "link(s) back to a folder above")):
            if paths:
                parts.append(f"{len(paths):,} {kind}, such as {paths[0]}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Walk:
    """The image files in a folder, its subfolders and linked folders, in order, and what was skipped.

    Broken links, pipes and the like that have the name of an image count as images: reading them says what is wrong.
    """

    images: tuple[Path, ...]
    folders: tuple[str, ...]  # names of the direct subfolders, and of broken links that may have been such
    skipped: Skipped


def walk(folder: Path) -> Walk:
    """Find all images in a folder at any depth, sorted by path; hidden files do not count.

    Raises MutualignError if the folder is missing, if a folder in it cannot be listed, or if a name is not UTF-8.
    """
    images: list[Path] = []
    top: list[str] = []
    skipped = Skipped()
    pending = [(folder, frozenset[tuple[int, int]]())]
    while pending:
        place, above = pending.pop()
        try:
            status = place.stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                skipped.loops.append(place)
                continue
            entries = _entries(place)
        except OSError as error:
            raise MutualignError(
                f"{place}: cannot be listed: {error.strerror}\n"
                "  hint:    make the folder readable, move it elsewhere, or start its name with a dot to leave it out"
            ) from error
        for entry in entries:
            path, kind = place / entry.name, _kind(entry)
            is_image = path.suffix.lower() in SUFFIXES
            if kind == "folder":
                pending.append((path, above | {here}))
            elif is_image:
                images.append(path)
            elif kind == "broken":
                skipped.broken.append(path)
            else:
                skipped.other[(path.suffix or "without extension") if kind == "file" else "not regular"] += 1
            if place == folder and (kind == "folder" or (kind == "broken" and not is_image)):
                top.append(entry.name)
        if len(images) + len(skipped) > MOST_FILES:
            raise MutualignError(f"{folder}: more than {MOST_FILES:,} files; do links repeat a folder many times?")
    return Walk(tuple(sorted(images)), tuple(sorted(top)), skipped)


def _entries(place: Path) -> list[os.DirEntry[str]]:
    """List the visible entries of a folder. Raises MutualignError for names that no report could show."""
    with os.scandir(place) as found:
        entries = [one for one in found if not is_hidden(one.name)]
    for entry in entries:
        if any("\ud800" <= character <= "\udfff" for character in entry.path):
            raise MutualignError(f"{entry.path!r}: a name that is not UTF-8\n  hint:    rename it")
    return entries


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", "file", "broken" for a link that leads nowhere, or "special" for pipes, devices and the like."""
    try:
        if not entry.is_symlink():
            return "folder" if entry.is_dir() else "file" if entry.is_file() else "special"
        mode = entry.stat().st_mode
    except OSError:
        return "broken"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "special"


def no_images(folder: Path, skipped: Skipped) -> MutualignError:
    """Describe a folder without images."""
    return MutualignError(
        f"{folder}: no images in it; {skipped or 'no other files either'}\n"
        f"  looked   for {_listed(SUFFIXES)}, in folders of any depth\n"
        "  hint:    put images there, convert those of other formats, or give another folder"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
