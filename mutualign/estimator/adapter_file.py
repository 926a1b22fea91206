"""A fitted adapter as one safetensors file: weights, and a header in JSON. Nothing in it is code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from mutualign.io.output import write_output
from mutualign.io.tensors import pack, unpack
from mutualign.io.text import parse_json
from mutualign.io.typed import encode_json, parse_typed
from mutualign.recipes import Recipe
from mutualign.recipes.upgrade import upgrade_recipe
from mutualign.runs.history import Result
from mutualign.runs.upgrade import upgrade_result
from mutualign.training.setup import check_weights

FORMAT = 2  # of the file; raised when an older mutualign could misread a newer file. Old formats stay readable.
LARGEST = 1 << 24  # characters of all classes' names
DTYPES: dict[str, Any] = {"U": np.str_, "i": np.int64, "u": np.uint64, "f": np.float64, "b": np.bool_, "O": object}


@dataclass(frozen=True)
class Classes:
    """The labels that a classifier predicts, with the kind of their numpy dtype."""

    kind: Literal["U", "i", "u", "f", "b", "O"]
    values: list[str | int | float | bool]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len(set(self.values)) != len(self.values):
            raise ValueError(f"expected two or more different classes, got {str(self.values)[:80]}")
        # numpy gives each name the room of the longest one
        if max(len(str(value)) for value in self.values) * len(self.values) > LARGEST:
            raise ValueError("names of classes that are too long")

    @classmethod
    def of(cls, classes: NDArray[Any]) -> Classes:
        """Convert from an array."""
        return cls(classes.dtype.kind, classes.tolist())  # type: ignore[arg-type]

    def array(self) -> NDArray[Any]:
        """Convert to an array. Raises ValueError if the values are not of the kind."""
        return np.asarray(self.values, dtype=DTYPES[self.kind])


@dataclass(frozen=True)
class Header:
    """All of a fitted adapter but its weights."""

    params: dict[str, Any]
    recipe: Recipe
    shape: ImageShape
    classes: Classes
    label_free_score: float
    result: Result
    feature_names: list[str] | None = None

    def __post_init__(self) -> None:
        self.shape.checked()


def write_adapter(path: Path, header: Header, weights: Mapping[str, Tensor]) -> None:
    """Write the file, all of it or nothing; a regular file is replaced. Raises MutualignError if it cannot be."""
    try:
        text = encode_json(replace(header, params=_plain(header.params)))
    except TypeError as error:
        raise MutualignError(f"{path}: a parameter or class cannot be saved: {error}") from error
    write_output(path, pack(weights, {"mutualign_adapter": str(FORMAT), "header": text}), force=True)


def _plain(value: Any) -> Any:
    """Convert parameters to what JSON has; a generator of random numbers is left out."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return None
    return value


def read_adapter(path: Path, params: Collection[str]) -> tuple[Header, dict[str, Tensor]]:
    """Read a file that `write_adapter` wrote; `params` are the names of known parameters.

    Raises MutualignError if it is not such a file, is broken, or is of a newer version. Header and weights are compared
    before anything larger than the file is allocated.
    """
    try:
        weights, metadata = unpack(path)
        if "mutualign_adapter" not in metadata:
            raise MutualignError(f"{path}: not a saved DomainAdapter")
        _check_format(path, metadata["mutualign_adapter"])
        header = _parse_header(metadata["header"], f"{path}")
        if unknown := header.params.keys() - set(params):
            raise MutualignError(f"{path}: unknown parameter {', '.join(sorted(unknown))}: use a newer mutualign")
        check_weights(header.recipe.backbone, header.shape, len(header.classes.array()), weights)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise MutualignError(f"{path}: not a readable DomainAdapter: {error}") from error
    return header, weights


def _check_format(path: Path, found: str) -> None:
    if not found.isdecimal() or not 1 <= int(found) <= FORMAT:
        advice = "use a newer mutualign" if found.isdecimal() and int(found) > FORMAT else "save it again"
        raise MutualignError(f"{path} has adapter format {found[:20]}, this version reads 1 to {FORMAT}: {advice}")


def _parse_header(text: str, where: str) -> Header:
    """Read the header of any format. Raises MutualignError, KeyError, TypeError or ValueError if it is wrong."""
    data = dict(parse_json(text))
    data["recipe"], data["result"] = upgrade_recipe(data["recipe"]), upgrade_result(data["result"])
    data["params"] = {name: tuple(one) if isinstance(one, list) else one for name, one in data["params"].items()}
    return parse_typed(data, Header, where)
