"""A fitted adapter as one safetensors file: weights, and a header in JSON. Nothing in it is code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from mutualign.io.atomic import write_atomically
from mutualign.io.tensors import pack, unpack
from mutualign.io.text import parse_json
from mutualign.recipes import Recipe, parse_recipe
from mutualign.training.setup import build_classifier

FORMAT = 1  # of the file; raised when an older mutualign could misread a newer file
LARGEST = 1 << 24  # characters of all classes' names

_KINDS: dict[str, Any] = {"U": np.str_, "i": np.int64, "u": np.uint64, "f": np.float64, "b": np.bool_, "O": object}


@dataclass(frozen=True)
class Saved:
    """All of a fitted adapter but its weights."""

    params: dict[str, Any]
    recipe: Recipe
    shape: ImageShape
    classes: NDArray[Any]
    feature_names: NDArray[Any] | None
    label_free_score: float
    result: dict[str, Any]


def write_adapter(path: Path, saved: Saved, weights: Mapping[str, Tensor]) -> None:
    """Write the file, all of it or nothing. Raises MutualignError if it cannot be written there."""
    header = {
        "params": saved.params,
        "recipe": saved.recipe.to_dict(),
        "shape": saved.shape,
        "classes": {"kind": saved.classes.dtype.kind, "values": saved.classes.tolist()},
        "feature_names": None if saved.feature_names is None else saved.feature_names.tolist(),
        "label_free_score": saved.label_free_score,
        "result": saved.result,
    }
    metadata = {"mutualign_adapter": str(FORMAT), "header": json.dumps(header, default=_plain)}
    write_atomically(path, pack(weights, metadata))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return None
    raise MutualignError(f"a parameter or class cannot be saved: {value!r}")


def read_adapter(path: Path, params: frozenset[str]) -> tuple[Saved, dict[str, Tensor]]:
    """A file that `write_adapter` wrote; `params` are the names of parameters that are known.

    Raises MutualignError if it is not such a file, is broken, or of a newer version. Nothing larger than the file is
    allocated before header and weights are found to agree.
    """
    try:
        weights, metadata = unpack(path)
        if "mutualign_adapter" not in metadata:
            raise MutualignError(f"{path}: not a saved DomainAdapter")
        if metadata["mutualign_adapter"] != str(FORMAT):
            found = metadata["mutualign_adapter"]
            advice = "use a newer mutualign" if found.isdecimal() and int(found) > FORMAT else "save it again"
            raise MutualignError(f"{path} has adapter format {found}, this mutualign reads {FORMAT}: {advice}")
        saved = _parsed(parse_json(metadata["header"]), f"{path}")
        if unknown := saved.params.keys() - params:
            raise MutualignError(f"{path}: unknown parameter {', '.join(sorted(unknown))}: use a newer mutualign")
        with torch.device("meta"):
            classifier = build_classifier(saved.recipe, saved.shape, len(saved.classes))
    except (OSError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise MutualignError(f"{path}: not a readable DomainAdapter: {error}") from error
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in classifier.state_dict().items()}
    if expected != {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}:
        raise MutualignError(f"{path}: the weights are not those of the network that its header tells of")
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise MutualignError(f"{path}: a weight is not finite")
    return saved, weights


def _parsed(header: dict[str, Any], where: str) -> Saved:
    """The header, if it holds together. Raises KeyError, TypeError or ValueError if not."""
    shape = ImageShape(*header["shape"]).checked()
    kind, values = header["classes"]["kind"], header["classes"]["values"]
    if max(len(str(value)) for value in values) * len(values) > LARGEST:  # numpy gives each name the longest's room
        raise ValueError("names of classes that are too long")
    classes = np.asarray(values, dtype=_KINDS[kind])
    if classes.ndim != 1 or len(classes) < 2 or len(set(values)) != len(values):
        raise ValueError(f"no list of classes: {str(values)[:80]}")
    params = {name: tuple(value) if isinstance(value, list) else value for name, value in header["params"].items()}
    names = header["feature_names"]
    if names is not None and not all(isinstance(name, str) for name in names):
        raise ValueError("names of features that are no text")
    if type(header["label_free_score"]) is not float or not isinstance(header["result"]["alarms"], list):
        raise ValueError("score or result are missing")
    return Saved(
        params,
        parse_recipe(header["recipe"], where),
        shape,
        classes,
        None if names is None else np.asarray(names, dtype=object),
        header["label_free_score"],
        header["result"],
    )
