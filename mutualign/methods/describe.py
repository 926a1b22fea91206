"""Descriptions of registered methods, for the command line and the documentation."""

from __future__ import annotations

import dataclasses
import inspect

from mutualign.methods.registry import MethodEntry


def explanation(entry: MethodEntry) -> str:
    """Return the docstring of a method: the idea, the loss, the source."""
    return inspect.cleandoc(entry.method.__doc__ or "")


def settings_of(entry: MethodEntry) -> dict[str, str]:
    """Return the names of a method's settings with their defaults; nested settings have dotted names.

    >>> from mutualign.methods import METHODS
    >>> settings_of(METHODS["coral"])
    {'weight': '1.0'}
    """
    return _flat(entry.config(), "")


def _flat(config: object, prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    if not dataclasses.is_dataclass(config):
        return found
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = _flat(value, f"{prefix}{field.name}.")
        found |= nested or {f"{prefix}{field.name}": str(value)}
    return found
