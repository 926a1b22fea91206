"""Plain data from files as typed values: dataclasses, read by msgspec, with errors that name the key."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from mutualign.errors import MutualignError, nearest
from mutualign.io.text import parse_json

LARGEST_INTEGER = 2**31 - 1  # a larger whole number is a mistake in every field

T = TypeVar("T")

# Types of fields with limits, which are checked when a file is read.
Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


def parse_typed(data: Any, expected: type[T], where: str, *, strict_keys: bool = False) -> T:
    """Convert plain data, as TOML and JSON have it, to a dataclass or another type.

    With `strict_keys`, numbers must be finite and of ordinary size, and an unknown key is an error that names the
    nearest known one. Without it, unknown keys are ignored, so that files of newer versions stay readable. Raises
    MutualignError that starts with `where` and names the key, as in `recipe own.toml, stages.0.optim.lr: ...`.

    >>> @dataclasses.dataclass
    ... class Size:
    ...     width: int
    >>> parse_typed({"width": 3}, Size, "page.toml")
    Size(width=3)
    """
    if strict_keys:
        _check_keys(data, expected, where, "")
    try:
        return msgspec.convert(data, expected, dec_hook=_convert_path)
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
    return msgspec.to_builtins(_with_defaults(value), enc_hook=_plain_path)


def encode_json(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON: on one line, or indented for people."""
    text = msgspec.json.encode(_with_defaults(value), enc_hook=_plain_path)
    return (msgspec.json.format(text, indent=indent) if indent else text).decode()


def _with_defaults(value: Any) -> Any:
    """Replace dataclasses by dictionaries of all fields; msgspec omits defaults of those that it has read."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _with_defaults(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _with_defaults(one) for key, one in value.items()}
    return [_with_defaults(one) for one in value] if isinstance(value, list | tuple) else value


def _convert_path(expected: Any, value: Any) -> Path:
    if expected is not Path or not isinstance(value, str):
        raise TypeError(f"expected a {'path' if expected is Path else expected.__name__}, got {type(value).__name__}")
    return Path(value)


def _plain_path(value: Any) -> str:
    if not isinstance(value, Path):
        raise TypeError(f"{type(value).__name__} cannot be written")
    return str(value)


def _message(error: msgspec.ValidationError, where: str) -> str:
    """`where, stages.0.optim: expected float, got str` from msgspec's message."""
    text, _, path = str(error).partition(" - at `")
    keys = re.sub(r"\[(\d+)\]", r".\1", path.rstrip("`")).replace("[...]", "").removeprefix("$").strip(".")
    text = text.replace("`", "").replace("Object missing required field", "missing the key")
    return f"{where}{', ' if keys else ''}{keys}: {text[:1].lower()}{text[1:]}"


def _check_keys(data: Any, expected: Any, where: str, path: str) -> None:
    """Raise MutualignError for the first unknown key, and for numbers that make no sense in any field."""
    here = f"{where}, {path}" if path else where
    if isinstance(data, float) and not math.isfinite(data):
        raise MutualignError(f"{here}: expected a finite number, got {data}")
    if type(data) is int and abs(data) > LARGEST_INTEGER:
        raise MutualignError(f"{here}: expected a number up to {LARGEST_INTEGER}, got one of {len(str(data))} digits")
    if typing.get_origin(expected) is typing.Literal and data not in (allowed := typing.get_args(expected)):
        raise MutualignError(f'{here}: got "{data}"; {nearest(str(data), map(str, allowed))}')
    if isinstance(data, list | tuple):
        inner = (typing.get_args(expected) or (Any,))[0]
        for number, one in enumerate(data):
            _check_keys(one, inner, where, _join(path, number))
    if isinstance(data, Mapping):
        is_record = isinstance(expected, type) and dataclasses.is_dataclass(expected)
        known = _fields_of(expected) if is_record else None
        for key, value in data.items():
            if known is not None and key not in known:
                inside = _place_below(str(key), known)
                advice = f'did you mean "{inside}"?' if inside else nearest(str(key), known)
                raise MutualignError(f'{here}: unknown key "{key}"; {advice}')
            _check_keys(value, known[key] if known else Any, where, _join(path, key))


def _place_below(key: str, known: Mapping[str, Any]) -> str | None:
    """Where a key is in the records inside a record, such as `stages.0.optim.lr`; None if nowhere."""
    for name, kind in known.items():
        place = f"{name}.0" if typing.get_origin(kind) in (list, tuple) else name
        for one in (kind, *typing.get_args(kind)):
            if isinstance(one, type) and dataclasses.is_dataclass(one):
                fields = _fields_of(one)
                if below := key if key in fields else _place_below(key, fields):
                    return f"{place}.{below}"
    return None


@cache
def _fields_of(expected: Any) -> dict[str, Any]:
    return typing.get_type_hints(expected)


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
