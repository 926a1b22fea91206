"""Tables of the docs: the registry of what formats each, and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tools.results import Results

Format = Callable[[Results], list[str]]


class Table(NamedTuple):
    """A table of the docs: lines of Markdown from a results file, or from the code if it has no source."""

    source: str  # results/SOURCE.json; "" for none
    format: Format


TABLES: dict[str, Table] = {}  # by the name in the documents


def table(*names: str, source: str | None = None) -> Callable[[Format], Format]:
    """Register a function that formats these tables: each from the results file of its name, or all from one source."""

    def register(format: Format) -> Format:
        for name in names:
            TABLES[name] = Table(name if source is None else source, format)
        return format

    return register


def markdown(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Format a table as lines of Markdown."""
    return [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *lines)]
