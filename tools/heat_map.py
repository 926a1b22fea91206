"""Draw the leaderboard's heat map: method x task, the colour is the gain in target accuracy over source only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm, to_rgb
from matplotlib.figure import Figure

from mutualign.recipes.recipe import SOURCE_ONLY
from mutualign.report.figure_style import BLUE, VERMILLION
from mutualign.runs.statistics import Interval
from tools.leaderboard import Board, certain
from tools.look import new_figure

LIMIT = 20  # points: the colour of this gain and of larger ones
INKS = "#1c1c1c", "#ffffff"  # for dark and for light text on a colour


def draw_heat_map(boards: Mapping[str, Board]) -> Figure:
    """Draw boards by their titles, side by side.

    The methods are in the order of their mean gain on the first board, the best first; those of other boards follow.
    """
    gains = {key: gain for board in boards.values() for key, gain in board.gains().items()}
    methods = list(dict.fromkeys(method for board in boards.values() for method in by_gain(board)))
    figure, axes = new_figure(
        0.245 * len(methods) + 1.2,
        columns=len(boards),
        width_ratios=[len(board.tasks) for board in boards.values()],
        squeeze=False,
    )
    for axis, (title, board) in zip(axes[0], boards.items(), strict=True):
        _draw(axis, gains, methods, board.tasks)
        axis.set_title(title, pad=8)
        axis.set_yticks(range(len(methods)), methods if axis is axes[0][0] else [], color=mpl.rcParams["text.color"])
    figure.suptitle("Points of accuracy gained over source only", fontsize=11, fontweight="bold")
    figure.supxlabel("bold: better or worse, by a 95 % interval; dot: needs images", fontsize=9, color=_text())
    return figure


def by_gain(board: Board) -> list[str]:
    """Return a board's methods but source only, the largest mean gain at the last epoch first."""
    standings = [one for one in board.standings() if one.method != SOURCE_ONLY]
    return [one.method for one in sorted(standings, key=lambda one: -one.gains["last"].mean)]


def _draw(axis: Axes, gains: Mapping[tuple[str, str], Interval], methods: Sequence[str], tasks: Sequence[str]) -> None:
    dark = mpl.rcParams["figure.facecolor"] == "none"  # lies on a dark page
    colours = LinearSegmentedColormap.from_list("gain", [VERMILLION, "#343842" if dark else "#f2f2f2", BLUE])
    cells = [[gains.get((method, task)) for task in tasks] for method in methods]
    points = np.array([[100 * gain.mean if gain else np.nan for gain in line] for line in cells])
    image = axis.imshow(points, cmap=colours, norm=TwoSlopeNorm(0, -LIMIT, LIMIT), aspect="auto")
    for (row, column), value in np.ndenumerate(points):
        gain = cells[row][column]
        axis.text(
            column,
            row,
            _signed(value) if gain else "·",
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold" if gain and certain(gain) else "normal",
            color=ink(image.to_rgba(value)) if gain else _text(),
        )
    axis.set_xticks(range(len(tasks)), [_short(task) for task in tasks], color=_text())
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def ink(colour: Any) -> str:
    """Return the colour of text that has the larger contrast on a colour [r, g, b, ...].

    >>> ink((1, 1, 1, 1)), ink((0, 0.3, 0.6, 1))
    ('#1c1c1c', '#ffffff')
    """
    paper = luminance(colour)
    return max(INKS, key=lambda name: abs(np.log((luminance(to_rgb(name)) + 0.05) / (paper + 0.05))))


def luminance(colour: Any) -> float:
    """Return the relative luminance of WCAG 2 of a colour [r, g, b, ...] in 0..1."""
    channels = np.array(colour[:3])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _text() -> str:
    return str(mpl.rcParams["text.color"])


def _signed(points: float) -> str:
    """Whole points with their sign."""
    whole = round(points)
    return f"{whole:+d}".replace("-", "−") if whole else "0"  # noqa: RUF001 - a minus is as wide as a plus


def _short(task: str) -> str:
    """A task as the head of a column: initials of its domains, or the size of its digits."""
    domains = task.removeprefix("office31:").partition("@")[0].split("-")
    return "→".join(domain[0].upper() for domain in domains) if len(domains) > 1 else "8×8"  # noqa: RUF001
