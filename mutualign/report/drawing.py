"""How figures look: colours, a style for all, and how a figure becomes an SVG inside a page or a PNG for a paper."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Inks that the page sets anew for light and dark; as they stand they suit white paper.
TEXT, MUTED, GRID, PAGE = "#1b1e23", "#5d646e", "#dfe2e7", "#fefefe"
INKS = {TEXT: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)", PAGE: "var(--page)"}

# Okabe and Ito: told apart by colour-blind eyes too. Grey instead of black, so that all are seen on white and on black.
BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, YELLOW, GREY = "#cc79a7", "#56b4e9", "#f0e442", "#8a8f98"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, GREY)
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")
SOURCE, TARGET = BLUE, ORANGE

NAMED = 31  # classes, up to which their names stand at an axis
DPI = 300  # of PNG files
POINTS_DPI = 200  # of the points that are pixels within an SVG

STYLE: Any = {  # of matplotlib, by its names
    "font.size": 9.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": TEXT,
    "text.parse_math": False,  # a class may be called $x$
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": TEXT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "mutualign",
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """A function that draws, in the style of all figures."""

    @wraps(draw)
    def within(*arguments: P.args, **named: P.kwargs) -> R:
        with mpl.rc_context(STYLE):
            return draw(*arguments, **named)

    return within


def panel(width: float = 5.2, height: float = 3.2, rows: int = 1, ratios: tuple[float, ...] = (1.0,)) -> list[Axes]:
    """The axes of a new figure, one below the other, which share x. Sizes in inches."""
    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)
    return list(axes[:, 0])


def figure_of(axis: Axes) -> Figure:
    """The figure that axes are in."""
    figure = axis.figure
    assert isinstance(figure, Figure)  # noqa: S101
    return figure


def legend_above(*axes: Axes, columns: int = 4) -> None:
    """One legend for all axes of a figure, above it, where it hides nothing."""
    found = [axis.get_legend_handles_labels() for axis in axes]
    handles = [handle for handles, _ in found for handle in handles]
    labels = [label for _, labels in found for label in labels]
    figure = figure_of(axes[0])
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, columnspacing=1.2, handlelength=1.6)


def percent_axis(axis: Axis) -> None:
    """Shares, told as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g} %"))


def plain_axis(axis: Axis) -> None:
    """Numbers as they are, such as 0.001."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def epoch_axis(axis: Axes, label: str = "epoch") -> None:
    """Whole numbers on x."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    axis.set_xlabel(label)


def shorten(name: str, length: int = 18) -> str:
    """A name for a label within a figure: what cannot be printed is replaced, and the rest is cut to a length."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def to_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as SVG for a page: deterministic, scalable, in the page's inks, with ids of its own."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _drawing():
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, dpi=POINTS_DPI)
    svg = buffer.getvalue()
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)  # it would be the whole page's
    svg = re.sub(r'(\bid="|url\(#|href="#)', lambda found: f"{found[0]}{name}-", svg)
    for ink, variable in INKS.items():
        svg = svg.replace(ink, variable)
    width, height = figure.get_size_inches() * 72
    opening = (
        f'<svg role="img" aria-label="{_attribute(label)}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}">'
    )
    return opening + svg[svg.index(">") + 1 :].strip()


def to_png(figure: Figure) -> bytes:
    """The figure as PNG for a paper: 300 dots an inch, on white."""
    buffer = io.BytesIO()
    with _drawing():
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _drawing() -> Iterator[None]:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # of a name; the browser's fonts have it
        yield


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
