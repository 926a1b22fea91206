"""Listings of images on disk: class folders, folders without classes, and tables of path and label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mutualign.data.folders.class_names import clean_name, refuse_alike
from mutualign.data.folders.tables import TABLES, read_table
from mutualign.data.folders.walk import Skipped, Walk, no_images, walk
from mutualign.errors import MutualignError


@dataclass(frozen=True)
class Listing:
    """Image files in a fixed order, each with the name of its class if they have classes."""

    where: Path  # the folder or table
    paths: tuple[Path, ...]
    labels: tuple[str, ...] | None
    skipped: Skipped = field(default_factory=Skipped)
    empty_classes: tuple[str, ...] = ()  # class folders without an image, and broken links in their place

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Iterable[int]) -> Listing:
        """Return the listing of the images at `rows`, in that order."""
        kept = list(rows)
        labels = None if self.labels is None else tuple(self.labels[row] for row in kept)
        return replace(self, paths=tuple(self.paths[row] for row in kept), labels=labels)

    @property
    def summary(self) -> str:
        """How many images of which classes, and what was skipped, on one line."""
        return f"{self.classes}; skipped: {self.skipped}" if len(self.skipped) else self.classes

    def class_counts(self) -> dict[str, int]:
        """Count the images of each class, in the order of the names; empty without classes."""
        return dict(sorted(Counter(self.labels or ()).items()))

    def class_names(self) -> tuple[str, ...]:
        """Return the classes in the order of their names. Raises MutualignError if two are the same number."""
        names = tuple(self.class_counts())
        refuse_alike(names, self.where)
        return names

    @property
    def classes(self) -> str:
        """How many images of which classes."""
        counts = self.class_counts()
        if not counts:
            return f"{len(self):,} images"
        rarest, commonest = (choose(counts, key=lambda name: counts[name]) for choose in (min, max))
        images = f"{len(self):,} images of {len(counts)} classes"
        if counts[rarest] == counts[commonest]:
            return f"{images}, {counts[rarest]:,} of each"
        return f'{images}, from {counts[rarest]:,} of "{rarest}" to {counts[commonest]:,} of "{commonest}"'


def list_labelled(where: Path) -> Listing:
    """List images with classes: WHERE/class/.../image.png, or a table (.csv, .parquet) with columns path and label.

    Paths in a table are relative to its folder. Raises MutualignError if there are no images, a column is missing, or
    an image is in no class folder.
    """
    if where.suffix.lower() in TABLES:
        return Listing(where, *read_table(where, labelled=True))
    found = _walk(where)
    parts = [path.relative_to(where).parts for path in found.images]
    if loose := [path for path, inside in zip(found.images, parts, strict=True) if len(inside) == 1]:
        raise MutualignError(
            f"{where}: {len(loose)} image(s) in no class folder, such as {loose[0].name}\n"
            f"  hint:    put the images of each class into a folder of its own, {where}/CLASS/image.png, or give a\n"
            "           table (.csv or .parquet) with the columns path and label"
        )
    labels = tuple(clean_name(inside[0]) for inside in parts)
    filled = set(labels)
    empty = tuple(name for name in map(clean_name, found.folders) if name not in filled)
    return Listing(where, found.images, labels, found.skipped, empty)


def list_unlabelled(where: Path) -> Listing:
    """List all images in a folder, at any depth, or of a table with the column path; labels are not read."""
    if where.suffix.lower() in TABLES:
        return Listing(where, *read_table(where, labelled=False))
    found = _walk(where)
    return Listing(where, found.images, None, found.skipped)


def _walk(folder: Path) -> Walk:
    """Walk through a folder. Raises MutualignError if it is missing, is a file, or has no images."""
    if folder.is_file():
        raise MutualignError(
            f"{folder}: a file, not a folder of images or a table ({', '.join(TABLES)})\n"
            f"  hint:    give its folder, for example {folder.parent}"
        )
    if not folder.is_dir():
        raise MutualignError(
            f"{folder}: no such folder\n  hint:    check the path; relative ones start from {Path.cwd()}"
        )
    found = walk(folder)
    if not found.images:
        raise no_images(folder, found.skipped)
    return found
