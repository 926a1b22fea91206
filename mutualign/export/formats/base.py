"""What an export format is, and the registry of formats. Imports no torch, so that `--help` is fast."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from mutualign.export.network import ExportedNetwork


class OpenedFile(NamedTuple):
    """An exported file, opened as a user of the file would open it."""

    probabilities: Callable[[Tensor], Tensor]  # pixels [n, height, width, stored] to float32 [n, classes]
    class_names: tuple[str, ...]


class Format(ABC):
    """A kind of exported file. The first line of the docstring is its help text."""

    name: ClassVar[str]  # set by `register_format`
    suffix: ClassVar[str]
    tolerance: ClassVar[float] = 1e-4  # largest accepted difference between a probability of the file and of the run
    usage: ClassVar[str]  # Python lines: `probabilities` and `names` of `pixels`, by the file {path!r}

    @abstractmethod
    def encode(self, network: ExportedNetwork, metadata: Mapping[str, str]) -> bytes:
        """Write the network for any number of images, with the metadata in the file.

        `class_names` and `image_shape` in the metadata are JSON.

        Raises MutualignError if a package is missing, RuntimeError if the network cannot be traced.
        """

    @abstractmethod
    def decode(self, content: bytes) -> OpenedFile:
        """Open a file with the library that its users have. Raises whatever that library raises for a bad file."""

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (type(self).__doc__ or "").strip().splitlines()[0]


FORMATS: dict[str, Format] = {}

F = TypeVar("F", bound=type[Format])


def register_format(name: str) -> Callable[[F], F]:
    """Decorator: make a format available by name to `mutualign export --format`.

    >>> @register_format("nothing")
    ... class Nothing(Format):
    ...     '''An empty file.'''
    ...     suffix, usage = ".empty", ""
    ...     def encode(self, network, metadata): return b""
    ...     def decode(self, content): return OpenedFile(lambda pixels: pixels, ())
    >>> FORMATS.pop("nothing").summary
    'An empty file.'
    """

    def register(format_class: F) -> F:
        format_class.name = name
        FORMATS[name] = format_class()
        return format_class

    return register


def formats_help() -> str:
    """Return the help text of `--format`: each format with its summary."""
    return " ".join(f"{name}: {each.summary}" for name, each in FORMATS.items())


def read_class_names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Read the class names from a file's metadata."""
    return tuple(json.loads(metadata["class_names"]))
