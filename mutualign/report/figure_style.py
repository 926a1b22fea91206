"""The look of figures: colours, one style, and conversion to SVG for a page or PNG for a paper."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# The page replaces these by its own colours for light and dark; here they suit white paper.
TEXT, MUTED, GRID, PAGE = "#1b1e23", "#5d646e", "#dfe2e7", "#fefefe"
INKS = {TEXT: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)", PAGE: "var(--page)"}

# The hues of Okabe and Ito, which colour-blind readers can distinguish, at a lightness with a contrast of 3:1 or more
# to the light page and to the dark one.
BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#c97b00", "#009e73", "#c4501a"
PURPLE, SKY, OLIVE, GREY = "#b8629b", "#4a97cc", "#8f8000", "#7d828b"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, OLIVE, GREY)
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")
SOURCE, TARGET = BLUE, ORANGE

WIDTH = 4.4  # inches; on a phone, text of 10 points then has 11 pixels or more
NAMED = 30  # most classes whose names fit an axis
MANY_EPOCHS = 40  # curves of more epochs have no markers
DPI = 300  # of PNG files
POINTS_DPI = 200  # of scatter points, which are pixels inside the SVG

STYLE: Any = {
    "font.size": 10,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": TEXT,
    "text.parse_math": False,  # a class may be called $x$
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "mutualign",
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorator: draw in the style of all figures."""

    @wraps(draw)
    def within(*arguments: P.args, **named: P.kwargs) -> R:
        with mpl.rc_context(STYLE):
            return draw(*arguments, **named)

    return within


def panel(height: float = 3.0, rows: int = 1, ratios: tuple[float, ...] = (1.0,)) -> list[Axes]:
    """Return the axes of a new figure, one below the other with a shared x axis; height in inches."""
    figure = Figure((WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)
    return list(axes[:, 0])


def figure_of(axis: Axes) -> Figure:
    """Return the figure of an axis."""
    figure = axis.figure
    assert isinstance(figure, Figure)  # noqa: S101
    return figure


def curve(axis: Axes, values: Sequence[float | None], colour: str, label: str) -> None:
    """Draw a line over epochs 1, 2, ..., with gaps where the value is None."""
    shown = np.array([np.nan if value is None else value for value in values], dtype=float)
    marker = "o" if len(values) <= MANY_EPOCHS else ""
    axis.plot(np.arange(len(shown)) + 1, shown, color=colour, marker=marker, markersize=4, label=label)


def legend_above(*axes: Axes) -> None:
    """Draw one legend for all axes of a figure above it, in as many columns as fit."""
    found = [axis.get_legend_handles_labels() for axis in axes]
    handles = [handle for handles, _ in found for handle in handles]
    labels = [label for _, labels in found for label in labels]
    longest = max((len(label) for label in labels), default=0)
    columns = min(len(labels), int(72 * WIDTH / (6 * longest + 30))) or 1
    figure_of(axes[0]).legend(
        handles, labels, loc="outside upper left", ncols=columns, columnspacing=1.2, handlelength=1.6
    )


def percent_axis(axis: Axis) -> None:
    """Label shares as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g} %"))


def accuracy_axis(axes: Axes) -> None:
    """Label accuracies on y as percentages, without ticks above 100 %; to be called after everything is drawn."""
    percent_axis(axes.yaxis)
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, 1 + 0.03 * (1 - low)))


def log_ticks(axis: Axis) -> None:
    """Label a log scale by numbers such as 0.001, without exponents; to be called after its limits are set."""
    low, high = axis.get_view_interval()
    steps = (1, 2, 5) if high < 30 * low else (1,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def epoch_axis(axis: Axes) -> None:
    """Label whole epochs on x."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axis.set_xlabel("epoch")


def shorten(name: str, length: int = 18) -> str:
    """Make a name fit a figure: replace what cannot be printed, cut the rest to a length."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def to_svg(figure: Figure, name: str, label: str) -> str:
    """Convert a figure to SVG for a page: deterministic, in the page's colours, with ids that start with its name."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _drawing():
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, dpi=POINTS_DPI)
    svg = buffer.getvalue()
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)  # would apply to the whole page
    svg = re.sub(r'(\bid="|url\(#|href="#)', lambda found: f"{found[0]}{name}-", svg)
    for ink, variable in INKS.items():
        svg = svg.replace(ink, variable)
    width, height = figure.get_size_inches() * 72
    opening = (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}">'
    )
    return opening + svg[svg.index(">") + 1 :].strip()


def to_png(figure: Figure) -> bytes:
    """Convert a figure to PNG for a paper: 300 dots per inch, on white."""
    buffer = io.BytesIO()
    with _drawing():
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _drawing() -> Iterator[None]:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the reader's browser has other fonts
        yield
