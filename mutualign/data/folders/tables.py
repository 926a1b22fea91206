"""Tables of images: CSV and Parquet files with the columns path and label."""

from __future__ import annotations

import csv
import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from mutualign.data.folders.class_names import clean_name
from mutualign.errors import MutualignError

TABLES = (".csv", ".parquet")
COLUMNS = ("path", "label")
_SAVE_AGAIN = "  hint:    check the path, or save the table again; a CSV table is UTF-8 text"


def read_table(where: Path, labelled: bool) -> tuple[tuple[Path, ...], tuple[str, ...] | None]:
    """Read the paths, relative to the table's folder, and with `labelled` the labels, without blanks around them.

    Raises MutualignError if a column or a value is missing, or if two rows give one path two labels.
    """
    wanted = COLUMNS if labelled else COLUMNS[:1]
    columns = _read_parquet(where) if where.suffix.lower() == ".parquet" else read_csv(where, wanted)
    for name in wanted:
        if name not in columns:
            raise MutualignError(
                f'{where}: no column "{name}"; it has: {", ".join(columns) or "none"}\n'
                f"  hint:    name a column {name}; a table has the columns {' and '.join(wanted)}"
                + (", separated by commas" if where.suffix.lower() == ".csv" else "")
            )
    if not columns["path"]:
        raise MutualignError(f"{where}: a table without a row\n  hint:    add one row per image")
    texts = {name: [_text(value, where) for value in columns[name]] for name in wanted}
    for name in wanted:
        if empty := [row for row, text in enumerate(texts[name], start=1) if not text.strip()]:
            raise MutualignError(
                f'{where}: row {empty[0]} has no "{name}" ({len(empty)} such row(s))\n'
                "  hint:    fill it in, or remove the row"
            )
    paths = tuple(_find(where.parent, text) for text in texts["path"])
    if not labelled:
        return paths, None
    labels = tuple(map(clean_name, texts["label"]))
    _refuse_contradictions(where, paths, labels)
    return paths, labels


def _text(value: object, where: Path) -> str:
    """Return a value as text; missing ones become empty."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise MutualignError(f"{where}: {value!r} is not UTF-8 text\n  hint:    save it as text") from error
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)


def _find(folder: Path, text: str) -> Path:
    """Return the file that a table means: the path as written, or as other systems write it if only that exists."""
    return next((folder / one for one in _spellings(text) if os.path.lexists(folder / one)), folder / text)


def _spellings(text: str) -> Iterator[str]:
    """Yield a path as written, without blanks around it, with slashes for backslashes, and in both Unicode forms."""
    yield text
    for one in (text.strip(), text.strip().replace("\\", "/")):
        yield one
        yield unicodedata.normalize("NFC", one)
        yield unicodedata.normalize("NFD", one)


def _refuse_contradictions(where: Path, paths: Sequence[Path], labels: Sequence[str]) -> None:
    first: dict[Path, str] = {}
    for row, (path, label) in enumerate(zip(paths, labels, strict=True), start=1):
        if first.setdefault(path, label) != label:
            raise MutualignError(
                f'{where}: row {row} labels {path} "{label}", an earlier row "{first[path]}"\n'
                "  hint:    remove one of the rows"
            )


def read_csv(where: Path, wanted: Sequence[str]) -> dict[str, list[str]]:
    """Read the columns of a CSV table.

    Raises MutualignError if it is not one, if rows have different lengths, or if a wanted column is there twice.
    """
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
                "  hint:    give each row as many; put a value with a comma in it between double quotes"
            )
    names = [name.strip() for name in head]
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise MutualignError(
            f'{where}: {names.count(twice[0])} columns "{twice[0]}"\n  hint:    remove or rename all but one of them'
        )
    return {name: [row[column] for row in body] for column, name in enumerate(names)}


def _read_parquet(where: Path) -> dict[str, list[object]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MutualignError(
            f"{where}: a Parquet table needs pyarrow\n  hint:    pip install 'mutualign[parquet]'"
        ) from error
    try:
        names = parquet.read_schema(where).names
        table = parquet.read_table(where, columns=[name for name in names if name in COLUMNS])
        return {name: table[name].to_pylist() if name in COLUMNS else [] for name in names}
    except (OSError, ValueError, KeyError, ArrowException) as error:
        raise MutualignError(f"{where}: not a readable Parquet table: {error}\n{_SAVE_AGAIN}") from error
