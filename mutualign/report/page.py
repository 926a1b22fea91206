"""What a page is made of, and how it becomes HTML. Whatever names and texts hold is escaped by the template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import jinja2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from mutualign.report.drawing import to_png, to_svg
from mutualign.report.pictures import data_uri, mosaic


@dataclass(frozen=True)
class Prose:
    """A paragraph. Here and in captions, what stands between backticks is set as code."""

    kind: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Plot:
    """A figure with its caption, which says how to read it. The name is unique on the page, of letters and dashes."""

    kind: ClassVar[str] = "plot"
    name: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False

    def svg(self) -> Markup:
        return Markup(to_svg(self.figure, self.name, self.title))  # noqa: S704  # matplotlib escapes what is written


@dataclass(frozen=True)
class Gallery:
    """Images [n, height, width, channels] in a row that wraps, each with a line below it."""

    kind: ClassVar[str] = "gallery"
    name: str
    title: str
    caption: str
    pixels: UInt8[np.ndarray, "n height width channels"]
    lines: Sequence[str] = ()
    alt: str = "target image"

    def pictures(self) -> Iterator[tuple[str, str, str]]:
        """Of each image its data URI, its description, and its line."""
        lines = self.lines or [""] * len(self.pixels)
        for number, (image, line) in enumerate(zip(self.pixels, lines, strict=True), start=1):
            yield data_uri(image), f"{self.alt} {number}: {line}".removesuffix(": "), line


@dataclass(frozen=True)
class Table:
    """Rows of text. The columns in `numbers` are set right, those in `muted` are greyed; `links` go by their text."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numbers: frozenset[int] = frozenset()
    muted: frozenset[int] = frozenset()
    muted_rows: frozenset[int] = frozenset()
    links: dict[str, str] = field(default_factory=dict)
    narrow: bool = False  # beside a plot


@dataclass(frozen=True)
class AlarmBox:
    """An alarm: what was seen, where, and the likely cause."""

    kind: ClassVar[str] = "alarm"
    name: str
    where: str
    seen: str
    cause: str


@dataclass(frozen=True)
class Details:
    """A text as it stands, to be opened and closed."""

    kind: ClassVar[str] = "details"
    summary: str
    text: str
    opened: bool = False


Block = Prose | Plot | Gallery | Table | AlarmBox | Details


@dataclass(frozen=True)
class Section:
    """A part of the page with an anchor and a heading."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class KeyNumber:
    """A number in large type; muted where it is not one to go by."""

    value: str
    label: str
    muted: bool = False


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    where: str
    summary: str
    numbers: Sequence[KeyNumber]
    sections: Sequence[Section]
    version: str

    def html(self) -> str:
        """The page as one HTML file that needs nothing else."""
        return _environment().get_template("report.html").render(page=self)

    def images(self) -> Iterator[tuple[str, bytes]]:
        """The name and PNG of each figure and gallery."""
        for block in (block for section in self.sections for block in section.blocks):
            if isinstance(block, Plot):
                yield block.name, to_png(block.figure)
            elif isinstance(block, Gallery) and len(block.pixels):
                yield block.name, mosaic(block.pixels)


def slug(text: str) -> str:
    """A text as an anchor, an id or a file name: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mutualign.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ticks"] = _ticks
    return environment


def _ticks(text: str) -> Markup:
    """Escaped text, with what stands between backticks set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704
