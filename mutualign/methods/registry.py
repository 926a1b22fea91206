"""The registry of methods: a new method is one file with `@register_method`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from mutualign.methods.base import Method
from mutualign.nn.classifier import Classifier

M = TypeVar("M", bound=type[Method])


@dataclass(frozen=True)
class MethodEntry:
    """A registered method: its name, its class, and the dataclass of its settings."""

    name: str
    method: type[Method]
    config: type[Any]

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (self.method.__doc__ or "").strip().splitlines()[0]

    def build(self, classifier: Classifier, config: Any) -> Method:
        """Build the method over a classifier; new parts are initialised from torch's global generator."""
        return self.method(classifier, config)


METHODS: dict[str, MethodEntry] = {}


@dataclass(frozen=True)
class NoConfig:
    """For methods without settings."""


def register_method(name: str, config: type[Any] = NoConfig) -> Callable[[M], M]:
    """Decorator: make a method available by name to recipes; `config` is the dataclass of its settings.

    >>> @register_method("nothing")
    ... class Nothing(Method):
    ...     '''Trains nothing.'''
    >>> METHODS.pop("nothing").summary
    'Trains nothing.'
    """

    def register(method: M) -> M:
        METHODS[name] = MethodEntry(name, method, config)
        return method

    return register
