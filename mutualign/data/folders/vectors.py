"""Files of feature vectors: X [n, features] and, if they are labelled, y [n], as .npz, .npy or .parquet."""

from __future__ import annotations

import math
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.lib import format as npy  # noqa: TID251 - headers are checked, and pickles are refused
from numpy.typing import NDArray
from torch import Tensor

from mutualign.data.folders.class_names import clean_name
from mutualign.data.types import LARGEST
from mutualign.errors import MutualignError

NUMPY = (".npz", ".npy")
PARQUET = ".parquet"
MOST_BYTES = 64 << 30  # of an array
MOST_ITEM = 4096  # bytes of a value: a label of a thousand letters
SAVE = 'numpy.savez("features.npz", X=X, y=y), with X [n, features] and y [n]'
_COLUMN = re.compile(r"x(0|[1-9]\d{0,7})")  # of a Parquet table with one column per feature


@dataclass(frozen=True)
class Vectors:
    """The feature vectors of a file and, if they were asked for, their labels."""

    where: Path
    x: Float32[Tensor, "n features"]
    labels: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.x)

    def rows(self) -> Iterator[tuple[str, Float32[Tensor, "1 1 features"]]]:
        """Yield each vector as an image of one pixel, with its name, FILE:ROW; rows count from 0."""
        for row, vector in enumerate(self.x):
            yield f"{self.where}:{row}", vector[None, None, :]


def holds_vectors(where: Path) -> bool:
    """Whether a file holds feature vectors: by its name, or if it is a Parquet table, by its columns."""
    suffix = where.suffix.lower()
    if suffix != PARQUET:
        return suffix in NUMPY
    try:
        from pyarrow import parquet

        return bool(_feature_columns(parquet.read_schema(where).names))
    except Exception:  # whoever reads the table says what is wrong
        return False


def read_vectors(where: Path, labelled: bool) -> Vectors:
    """Read X, and with `labelled` y, which holds text or integers; nothing in the file is executed.

    Shapes and types are checked before values are read. Raises MutualignError, naming the file, if it is of another
    kind, lacks an array, or has values that are not finite.
    """
    if not where.exists():
        raise MutualignError(f"{where}: no such file\n  hint:    check the path; relative ones start from {Path.cwd()}")
    if not holds_vectors(where):
        raise MutualignError(
            f"{where}: not a file of feature vectors ({', '.join(NUMPY)}, or {PARQUET} with the columns X and y)\n"
            "  hint:    source and target are both feature vectors, or both images"
        )
    names = ("X", "y") if labelled else ("X",)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy, on files of Python 2
            arrays = _read_parquet(where, names) if where.suffix.lower() == PARQUET else _read_numpy(where, names)
            labels = _labels(arrays["y"].tolist(), where) if labelled else None
    except MutualignError:
        raise
    except Exception as error:  # zipfile, numpy and pyarrow raise many kinds on damaged files
        raise MutualignError(
            f"{where}: not a readable {where.suffix.lower()} file: {error}\n  hint:    save it again: {SAVE}"
        ) from error
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(arrays["X"], dtype=np.float32)
    _require_finite(x, arrays["X"], where)
    return Vectors(where, torch.from_numpy(x), labels)


def _require_finite(x: NDArray[np.float32], given: NDArray[Any], where: Path) -> None:
    """Raise MutualignError that names the first value that float32 cannot hold."""
    good = np.isfinite(x).all(1)
    if not good.all():
        row = int(good.argmin())
        column = int(np.isfinite(x[row]).argmin())
        raise MutualignError(
            f"{where}: X[{row}, {column}] is {given[row, column]}; values must be finite in float32 "
            f"({int((~good).sum()):,} such row(s))\n  hint:    leave these rows out, or compute them again"
        )


def _labels(values: Sequence[Any], where: Path) -> tuple[str, ...]:
    """Labels as clean text. Raises MutualignError for one that is empty or not UTF-8."""
    try:
        names = tuple(clean_name(one.decode() if isinstance(one, bytes) else str(one)) for one in values)
        "".join(names).encode()
    except UnicodeError as error:
        raise MutualignError(f"{where}: a label in y is not UTF-8 text\n  hint:    save y as text") from error
    if "" in names:
        raise MutualignError(f"{where}: y[{names.index('')}] is empty\n  hint:    label the row, or leave it out")
    return names


# numpy ----------------------------------------------------------------------------------------------------------------


def _read_numpy(where: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    if where.suffix.lower() == ".npy":
        if "y" in names:
            raise MutualignError(f"{where}: has no labels y\n  hint:    save X and y in one file: {SAVE}")
        with where.open("rb") as file:
            return {"X": _array(file, where.stat().st_size, "X", where, None)}
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(where) as archive:
        sizes = {one.filename.removesuffix(".npy"): one.file_size for one in archive.infolist()}
        for name in names:
            if name not in sizes:
                found = ", ".join(sorted(sizes)[:10]) or "no arrays"
                raise MutualignError(f'{where}: no array "{name}"; it has: {found}\n  hint:    {SAVE}')
            with archive.open(f"{name}.npy") as file:
                arrays[name] = _array(file, sizes[name], name, where, len(arrays["X"]) if arrays else None)
    return arrays


def _array(file: IO[bytes] | BufferedIOBase, size: int, name: str, where: Path, rows: int | None) -> NDArray[Any]:
    """Read an array of a stream of `size` bytes, after its header has been checked."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has the format {version}")
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    _require_type(dtype.kind in ("fiu" if name == "X" else "USiu") and dtype.itemsize <= MOST_ITEM, name, dtype, where)
    _require_shape(tuple(shape), name, where, rows)
    if math.prod(shape) * dtype.itemsize != size - file.tell() or size > MOST_BYTES:
        raise ValueError(f"{name} has {size:,} bytes, its shape is {shape}")
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)


def _require_type(good: bool, name: str, found: object, where: Path) -> None:
    """Raise MutualignError unless an array has a type that is read."""
    if not good:
        wanted, kind = ("numbers", "numpy.float32") if name == "X" else ("text or integers", "str")
        raise MutualignError(
            f"{where}: {name} has the type {found}; expected {wanted}\n  hint:    save {name}.astype({kind})"
        )


def _require_shape(shape: tuple[int, ...], name: str, where: Path, rows: int | None) -> None:
    """Raise MutualignError unless X is [n, features], or y is [n], with as many rows as X."""
    if name == "X" and not (len(shape) == 2 and min(shape) > 0 and shape[1] <= LARGEST):
        raise MutualignError(
            f"{where}: X has the shape {list(shape)}; expected [n, features], with one row or more\n"
            "  hint:    X.reshape(len(X), -1) makes rows of arrays with more axes"
        )
    if name == "y" and shape != (rows,):
        raise MutualignError(
            f"{where}: y has the shape {list(shape)}; expected [{rows}], one label per row of X\n"
            "  hint:    give one class per row; of one-hot labels, y.argmax(1)"
        )


# Parquet --------------------------------------------------------------------------------------------------------------


def _feature_columns(names: Sequence[str]) -> list[str]:
    """The columns of features in a Parquet table: X, or x0, x1, ...; empty if it has none, or is one of images."""
    if "path" in names:
        return []
    if "X" in names:
        return ["X"]
    return sorted((name for name in names if _COLUMN.fullmatch(name)), key=lambda name: int(name[1:]))


def _read_parquet(where: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    from pyarrow import parquet, types

    with parquet.ParquetFile(where) as file:
        found, groups = file.schema_arrow.names, range(file.metadata.num_row_groups)
        columns = _feature_columns(found)
        if "y" in names and "y" not in found:
            raise MutualignError(
                f'{where}: no column "y"; it has: {", ".join(found[:10])}\n  hint:    name the column of labels y'
            )
        if columns != ["X"] and columns[-1] != f"x{len(columns) - 1}":
            missing = next(f"x{number}" for number, name in enumerate(columns) if name != f"x{number}")
            raise MutualignError(f'{where}: no column "{missing}", but {columns[-1]}\n  hint:    number them from x0')
        if sum(file.metadata.row_group(group).total_byte_size for group in groups) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 30} GiB")
        table = file.read(columns=[*columns, *names[1:]])
    arrays = {"X": _parquet_features([table[name] for name in columns], where)}
    if "y" in names:
        labels = table["y"]
        kind = labels.type.value_type if types.is_dictionary(labels.type) else labels.type
        text = types.is_string(kind) or types.is_large_string(kind)
        _require_type(text or types.is_integer(kind), "y", labels.type, where)
        if labels.null_count:
            raise MutualignError(f"{where}: y has {labels.null_count:,} empty value(s)\n  hint:    leave the rows out")
        arrays["y"] = np.array(labels.to_pylist(), dtype=object)
    return arrays


def _parquet_features(columns: Sequence[Any], where: Path) -> NDArray[Any]:
    """Columns of numbers, or one column of lists of equal length, as X [n, features]."""
    from pyarrow import compute, types

    parts, rows = list(columns), len(columns[0])
    nested = [types.is_list(one.type) or types.is_large_list(one.type) for one in parts]
    nested = [one or types.is_fixed_size_list(part.type) for one, part in zip(nested, parts, strict=True)]
    if nested == [True] and rows:
        lengths = compute.unique(compute.list_value_length(parts[0])).to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            raise MutualignError(
                f"{where}: rows of X have different lengths: {lengths[:5]}\n"
                "  hint:    give each row a vector of the same model"
            )
        parts = [compute.list_flatten(parts[0])]
    for one in parts:
        _require_type(types.is_floating(one.type) or types.is_integer(one.type), "X", one.type, where)
        if one.null_count:
            raise MutualignError(f"{where}: X has {one.null_count:,} empty value(s)\n  hint:    leave the rows out")
    values = np.stack([one.to_numpy() for one in parts], axis=1)
    x = values.reshape(rows, -1) if rows else values
    _require_shape(x.shape, "X", where, None)
    return x
