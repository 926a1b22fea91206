"""Plain data from files as typed values: dataclasses, read by msgspec, with errors that name the key."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from mutualign.errors import MutualignError, nearest
from mutualign.io.text import parse_json

LARGEST_INTEGER = 2**31 - 1  # a larger whole number is a mistake in every field

T = TypeVar("T")


def parse_typed(data: Any, expected: type[T], where: str, *, strict_keys: bool = False) -> T:
    """Convert plain data (of TOML or JSON) to a dataclass or another type.

    With `strict_keys`, an unknown key is an error that names the nearest known one, and numbers must be finite and of
    ordinary size; without, unknown keys are ignored, so that newer files stay readable. Raises MutualignError that
    begins with `where` and names the key.

    >>> @dataclasses.dataclass
    ... class Size:
    ...     width: int
    >>> parse_typed({"width": 3}, Size, "page.toml")
    Size(width=3)
    """
    if strict_keys:
        _check_keys(data, expected, where)
    try:
        return msgspec.convert(data, expected)
    except msgspec.ValidationError as error:
        raise MutualignError(_message(error, where)) from error
    except (RecursionError, OverflowError) as error:
        raise MutualignError(f"{where}: not readable: {error}") from error


def decode_typed(text: str, expected: type[T], where: str) -> T:
    """Convert a JSON text to a dataclass or another type. Raises MutualignError as `parse_typed` does."""
    try:
        data = parse_json(text)
    except ValueError as error:
        raise MutualignError(f"{where}: not JSON: {error}") from error
    return parse_typed(data, expected, where)


def to_plain(value: Any) -> Any:
    """Convert a dataclass, and everything in it, to dictionaries, lists, text and numbers."""
    return msgspec.to_builtins(value)


def encode_json(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON: on one line, or indented for people."""
    text = msgspec.json.encode(value)
    return (msgspec.json.format(text, indent=indent) if indent else text).decode()


def _message(error: msgspec.ValidationError, where: str) -> str:
    """`where, stages.0.optim: expected float, got str` from msgspec's message."""
    text, _, path = str(error).partition(" - at `")
    keys = re.sub(r"\[(\d+)\]", r".\1", path.rstrip("`")).replace("[...]", "").removeprefix("$").strip(".")
    text = text.replace("`", "").replace("Object missing required field", "missing the key")
    return f"{where}{', ' if keys else ''}{keys}: {text[:1].lower()}{text[1:]}"


def _check_keys(data: Any, expected: Any, where: str) -> None:
    """Raise MutualignError for the first unknown key and for numbers that no field can mean."""
    if isinstance(data, float) and not math.isfinite(data):
        raise MutualignError(f"{where}: expected a finite number, got {data}")
    if type(data) is int and abs(data) > LARGEST_INTEGER:
        raise MutualignError(f"{where}: expected a number up to {LARGEST_INTEGER}, got one of {len(str(data))} digits")
    if typing.get_origin(expected) is typing.Literal and data not in (allowed := typing.get_args(expected)):
        raise MutualignError(f'{where}: got "{data}"; {nearest(str(data), map(str, allowed))}')
    if isinstance(data, list | tuple):
        inner = (typing.get_args(expected) or (Any,))[0]
        for number, one in enumerate(data):
            _check_keys(one, inner, f"{where}, {number}")
    if not isinstance(data, Mapping):
        return
    known = typing.get_type_hints(expected) if dataclasses.is_dataclass(expected) else None
    for key, value in data.items():
        if known is not None and key not in known:
            raise MutualignError(f'{where}: unknown key "{key}"; {nearest(str(key), known)}')
        _check_keys(value, known[key] if known else Any, f"{where}, {key}")
