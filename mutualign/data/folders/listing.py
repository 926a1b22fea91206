"""A user's images on disk: class folders, folders without classes, and tables of path and label."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutualign.data.folders.image_io import SUFFIXES
from mutualign.errors import MutualignError, nearest

TABLES = (".csv", ".parquet")
COLUMNS = ("path", "label")
_SAVE_AGAIN = "  do       check the path, or save the table anew; a CSV table is UTF-8 text"


@dataclass(frozen=True)
class Listing:
    """Image files in a fixed order, each with the name of its class if they have classes."""

    where: Path  # the folder or table that they were listed from
    paths: tuple[Path, ...]
    labels: tuple[str, ...] | None
    ignored: int = 0  # files that are not images by their name

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Iterable[int]) -> Listing:
        """Only the images at `rows`, in that order."""
        kept = list(rows)
        labels = None if self.labels is None else tuple(self.labels[row] for row in kept)
        return Listing(self.where, tuple(self.paths[row] for row in kept), labels, self.ignored)

    @property
    def told(self) -> str:
        """How many images, and of the folder's other files how many."""
        other = f"; {self.ignored:,} other file(s), which are not looked at" if self.ignored else ""
        return f"{describe_classes(self)}{other}"

    def class_counts(self) -> dict[str, int]:
        """Images of each class, in the order of the names; empty where there are no classes."""
        return dict(sorted(Counter(self.labels or ()).items()))


def list_labelled(where: Path) -> Listing:
    """Images with classes: WHERE/class/.../image.png, or a table (.csv, .parquet) with the columns path and label.

    Paths in a table are relative to its folder. Raises MutualignError if there is nothing there, no class folder, no
    such column, or an image in no class folder.
    """
    if where.suffix.lower() in TABLES:
        return _from_table(where, labelled=True)
    paths, ignored = _images_below(where)
    parts = [path.relative_to(where).parts for path in paths]
    if loose := [path for path, inside in zip(paths, parts, strict=True) if len(inside) == 1]:
        raise MutualignError(
            f"{where}: {len(loose)} image(s) in no class folder, such as {loose[0].name}\n"
            f"  do       put the images of each class into a folder of its own, {where}/CLASS/image.png, or give a\n"
            "           table (.csv or .parquet) with the columns path and label"
        )
    return Listing(where, tuple(paths), tuple(inside[0] for inside in parts), ignored)


def list_unlabelled(where: Path) -> Listing:
    """All images below a folder, or of a table with the column path; labels, if there are any, are not looked at."""
    if where.suffix.lower() in TABLES:
        return _from_table(where, labelled=False)
    paths, ignored = _images_below(where)
    return Listing(where, tuple(paths), None, ignored)


def _images_below(folder: Path) -> tuple[list[Path], int]:
    """Image files by their names, sorted, and how many other files there are; hidden ones do not count."""
    if folder.is_file():
        raise MutualignError(
            f"{folder}: a file, not a folder of images or a table ({', '.join(TABLES)})\n"
            f"  do       give the folder that it is in, for example {folder.parent}"
        )
    if not folder.is_dir():
        raise MutualignError(
            f"{folder}: no such folder\n  do       check the path; relative ones begin at {Path.cwd()}"
        )
    try:
        files = [
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
    except (OSError, RecursionError) as error:
        raise MutualignError(f"{folder}: cannot be listed: {error}") from error
    for path in files:
        if any("\ud800" <= character <= "\udfff" for character in str(path)):
            raise MutualignError(f"{str(path)!r}: a name that is not UTF-8, which no report could tell; rename it")
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        kinds = ", ".join(sorted(SUFFIXES))
        raise MutualignError(
            f"{folder}: no images in it, {len(files)} other file(s)\n"
            f"  looked   for {kinds}, in folders of any depth\n"
            "  do       put images there, convert those of other formats, or give another folder"
        )
    return images, len(files) - len(images)


def _from_table(where: Path, labelled: bool) -> Listing:
    columns = _read_parquet(where) if where.suffix.lower() == ".parquet" else _read_csv(where)
    wanted = COLUMNS if labelled else COLUMNS[:1]
    for name in wanted:
        if name not in columns:
            raise MutualignError(
                f'{where}: no column "{name}"; there is: {", ".join(columns) or "none"}\n'
                f"  do       name a column {name}; a table has the columns {' and '.join(wanted)}"
                + (", with commas between" if where.suffix.lower() == ".csv" else "")
            )
    if not columns["path"]:
        raise MutualignError(f"{where}: a table without a row\n  do       add a row an image")
    for name in wanted:
        if empty := [row for row, value in enumerate(columns[name], start=1) if _is_empty(value)]:
            raise MutualignError(
                f'{where}: row {empty[0]} has no "{name}" ({len(empty)} such row(s))\n'
                "  do       fill it, or leave it out"
            )
    paths = tuple(where.parent / str(path) for path in columns["path"])
    labels = tuple(map(str, columns["label"])) if labelled else None
    _refuse_contradictions(where, paths, labels or ())
    return Listing(where, paths, labels)


def _is_empty(value: object) -> bool:
    return value in (None, "") or (isinstance(value, float) and math.isnan(value))


def _refuse_contradictions(where: Path, paths: Sequence[Path], labels: Sequence[str]) -> None:
    first: dict[Path, str] = {}
    for row, (path, label) in enumerate(zip(paths, labels, strict=False), start=1):
        if first.setdefault(path, label) != label:
            raise MutualignError(
                f'{where}: row {row} calls {path} "{label}", an earlier row "{first[path]}"\n'
                "  do       leave one of the rows out"
            )


def _read_csv(where: Path) -> dict[str, list[str | None]]:
    try:
        with where.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MutualignError(f"{where}: not a readable CSV table: {error}\n{_SAVE_AGAIN}") from error
    head, body = (rows[0], [row for row in rows[1:] if row]) if rows else ([], [])
    for number, row in enumerate(body, start=1):
        if len(row) != len(head):
            raise MutualignError(
                f"{where}: row {number} has {len(row)} value(s), the head has {len(head)}\n"
                "  do       give each row as many; a value with a comma in it goes between double quotes"
            )
    return {name.strip(): [row[column] for row in body] for column, name in enumerate(head)}


def _read_parquet(where: Path) -> dict[str, list[object]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MutualignError(
            f"{where}: a Parquet table needs pyarrow\n  do       pip install 'mutualign[parquet]'"
        ) from error
    try:
        names = parquet.read_schema(where).names
        table = parquet.read_table(where, columns=[name for name in names if name in COLUMNS])
        return {name: table[name].to_pylist() if name in COLUMNS else [] for name in names}
    except (OSError, ValueError, KeyError, ArrowException) as error:
        raise MutualignError(f"{where}: not a readable Parquet table: {error}\n{_SAVE_AGAIN}") from error


def describe_classes(listing: Listing) -> str:
    """How many images there are of how many classes, and how uneven that is."""
    counts = listing.class_counts()
    if not counts:
        return f"{len(listing):,} images"
    rarest, commonest = (choose(counts, key=lambda name: counts[name]) for choose in (min, max))
    told = f"{len(listing):,} images of {len(counts)} classes"
    if counts[rarest] == counts[commonest]:
        return f"{told}, {counts[rarest]:,} of each"
    return f'{told}, from {counts[rarest]:,} of "{rarest}" to {counts[commonest]:,} of "{commonest}"'


def class_names(listing: Listing) -> tuple[str, ...]:
    """The classes in the order of their names."""
    return tuple(listing.class_counts())


def indices_of(listing: Listing, names: Sequence[str]) -> list[int]:
    """Each image's class as a place in `names`. Raises MutualignError that names a class that is not among them."""
    places = {name: place for place, name in enumerate(names)}
    unknown = [name for name in listing.class_counts() if name not in places]
    if unknown:
        raise MutualignError(
            f'{listing.where}: class "{unknown[0]}" is not among the source\'s; {nearest(unknown[0], names)}\n'
            "  do       rename it, leave it out, or add labelled source images of it"
        )
    return [places[name] for name in listing.labels or ()]
