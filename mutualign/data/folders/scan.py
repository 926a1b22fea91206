"""Scanning of listed files: the SHA-256 and the header of each, before anything is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from mutualign.data.folders.image_io import image_shape, read_image_file
from mutualign.data.folders.listing import Listing
from mutualign.data.folders.parallel import in_parallel
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError


@dataclass(frozen=True)
class Scan:
    """The files of a listing whose header can be read, and the faults of the others."""

    listing: Listing  # of the readable images
    digests: tuple[str, ...]  # SHA-256 of each file
    shapes: tuple[ImageShape, ...]
    bad: tuple[str, ...]  # one line per unreadable image: the file and the fault

    @property
    def channels(self) -> int:
        """1 if all images are grey, else 3."""
        return max(shape.channels for shape in self.shapes)


def join(scans: Sequence[Scan]) -> Scan:
    """Join scans of the same folder: each file once, in the order of the paths."""
    files = {}
    for one in scans:
        for path, digest, shape in zip(one.listing.paths, one.digests, one.shapes, strict=True):
            files[path] = digest, shape
    paths = tuple(sorted(files))
    digests, shapes = zip(*(files[path] for path in paths), strict=True)
    return Scan(replace(scans[0].listing, paths=paths, labels=None), digests, shapes, ())


def scan(listing: Listing, what: str) -> Scan:
    """Read every file of a listing once. Raises MutualignError if none of them is an image."""

    def read(path: Path) -> tuple[str, ImageShape] | str:
        try:
            content = read_image_file(path)
            return hashlib.sha256(content).hexdigest(), image_shape(content, path)
        except MutualignError as error:
            return str(error)

    with closing(in_parallel(read, listing.paths, f"reading {what}", file_size)) as results:
        found = list(results)
    good = [row for row, one in enumerate(found) if not isinstance(one, str)]
    bad = tuple(one for one in found if isinstance(one, str))
    if not good:
        raise MutualignError(f"{listing.where}: none of the {len(listing)} images can be read\n  such as  {bad[0]}")
    readable = [one for one in found if not isinstance(one, str)]
    return Scan(listing.take(good), tuple(one[0] for one in readable), tuple(one[1] for one in readable), bad)


def file_size(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it is unknown."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0
