"""The blocks of a page, and the page as HTML. The template escapes all names and texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import ClassVar

import jinja2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from mutualign.data.pictures import to_data_url
from mutualign.report.figure_style import to_png, to_svg
from mutualign.report.pictures import mosaic

SMOOTH = 48  # pixels; images of this size are shown smoothly, smaller ones with their pixels as squares
THUMBNAIL = 128  # pixels; larger images are shrunk to this size
PHONE_COLUMNS = 3  # of a table, that a phone has room for


@dataclass(frozen=True)
class Prose:
    """A paragraph. Here, in captions and in tables, text between backticks is set as code."""

    kind: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of short lines."""

    kind: ClassVar[str] = "bullets"
    lines: Sequence[str]


@dataclass(frozen=True)
class Plot:
    """A figure, and a caption that says how to read it. The name consists of letters and dashes, unique on the page."""

    kind: ClassVar[str] = "plot"
    name: str
    title: str
    caption: str
    figure: Figure

    def svg(self) -> Markup:
        """Return the figure as SVG."""
        return Markup(to_svg(self.figure, self.name, self.title))  # noqa: S704  # matplotlib escapes texts


@dataclass(frozen=True)
class Gallery:
    """Images, each with a line of text below it."""

    kind: ClassVar[str] = "gallery"
    name: str
    title: str
    caption: str
    pixels: UInt8[np.ndarray, "n height width channels"]
    lines: Sequence[str] = ()
    alt: str = "target image"

    @property
    def pixelated(self) -> bool:
        """Whether images are so small that their pixels are shown as squares."""
        return bool(max(self.pixels.shape[1:3]) < SMOOTH)

    @property
    def described(self) -> bool:
        """Whether there are several lines below an image."""
        return any("\n" in line for line in self.lines)

    def pictures(self) -> Iterator[tuple[str, str, str]]:
        """Yield each image's data URI, description and line."""
        lines = self.lines or [""] * len(self.pixels)
        for number, (image, line) in enumerate(zip(self.pixels, lines, strict=True), start=1):
            yield to_data_url(image, THUMBNAIL), f"{self.alt} {number}: {line}".removesuffix(": "), line


@dataclass(frozen=True)
class Table:
    """Rows of text. `numbers` are columns aligned right; `muted` are columns in grey. `folded` is a title to unfold."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numbers: frozenset[int] = frozenset()
    muted: frozenset[int] = frozenset()
    muted_rows: frozenset[int] = frozenset()
    narrow: bool = False  # as wide as a plot
    folded: str = ""
    links: Mapping[str, str] = field(default_factory=dict)  # addresses by the text of a cell in the first column

    @property
    def stacked(self) -> bool:
        """Whether a phone shows each row as a list, because it has no room for the columns."""
        return len(self.head) > PHONE_COLUMNS


@dataclass(frozen=True)
class AlarmBox:
    """An alarm: where it was raised, what was seen, and the likely cause."""

    kind: ClassVar[str] = "alarm"
    name: str
    where: str
    seen: str
    cause: str


@dataclass(frozen=True)
class Details:
    """A preformatted text that folds."""

    kind: ClassVar[str] = "details"
    summary: str
    text: str
    opened: bool = False


Block = Prose | Bullets | Plot | Gallery | Table | AlarmBox | Details


@dataclass(frozen=True)
class Section:
    """A part of the page with an anchor and a heading."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Badge:
    """The verdict in a word, its tone (good, bad, even or open), and what to do next."""

    word: str
    tone: str
    steps: Sequence[str] = ()


@dataclass(frozen=True)
class KeyNumber:
    """A number in large type; in grey if it is not a result."""

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
    reads_labels: bool  # whether the runs' targets have test labels
    badge: Badge | None = None

    def html(self) -> str:
        """Return the page as one self-contained HTML file."""
        return _environment().get_template("report.html").render(page=self, version=version("mutualign"))

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and PNG of each figure and gallery."""
        for block in (block for section in self.sections for block in section.blocks):
            if isinstance(block, Plot):
                yield block.name, to_png(block.figure)
            elif isinstance(block, Gallery) and len(block.pixels):
                yield block.name, mosaic(block.pixels)


def slug(text: str) -> str:
    """Turn a text into an anchor or file name of lower-case letters, digits and dashes."""
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
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """Let a browser break a line after an underscore."""
    return escape(text).replace("_", Markup("_<wbr>"))


def _ticks(text: str) -> Markup:
    """Escape a text, and set what is between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704
