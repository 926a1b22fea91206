"""Figures of outputs and features at one epoch. Data in, matplotlib figure out; nothing is read or written here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mutualign.report.figure_style import (
    BLUE,
    DASHES,
    GREY,
    MARKERS,
    MUTED,
    NAMED,
    ORANGE,
    PAGE,
    PALETTE,
    SOURCE,
    TARGET,
    figure_of,
    legend_above,
    panel,
    percent_axis,
    shorten,
    styled,
)

COUNTED = 10  # most classes whose counts fit the confusion matrix
SQUARE = 20  # most classes whose names fit below a square matrix
STRONGEST = 0.6  # opacity of a full cell, on which text stays readable
SMALLEST = 0.12  # side of the smallest square of a cell

Points = Float[np.ndarray, "n 2"]


@styled
def embedding_by_domain(points: Points, is_source: Bool[np.ndarray, " n"]) -> Figure:
    """Draw an embedding coloured by domain."""
    axis = _map()
    for rows, colour, marker, name in ((is_source, SOURCE, "o", "source"), (~is_source, TARGET, "^", "target")):
        x, y = points[rows].T
        axis.scatter(x, y, s=9, c=colour, marker=marker, linewidths=0, rasterized=True, label=name)
    figure = figure_of(axis)
    legend = figure.legend(loc="outside upper left", ncols=2, markerscale=2)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_rasterized(False)
    return figure


@styled
def embedding_by_class(
    points: Points, is_source: Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"], class_names: Sequence[str]
) -> Figure:
    """Draw an embedding coloured by class, source small and target large; names stand at the median of the target."""
    axis = _map()
    for number in range(len(class_names)):
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number // len(PALETTE) % len(MARKERS)]
        for rows, size in ((is_source & (labels == number), 4), (~is_source & (labels == number), 14)):
            x, y = points[rows].T
            axis.scatter(x, y, s=size, c=colour, marker=marker, linewidths=0, rasterized=True)
    if len(class_names) <= NAMED:
        _name_classes(axis, points[~is_source], labels[~is_source], class_names)
    return figure_of(axis)


def _name_classes(axis: Axes, points: Points, labels: Int[np.ndarray, " n"], class_names: Sequence[str]) -> None:
    """Write the names; one that would cover another moves up."""
    width, height = np.ptp(np.array([axis.get_xlim(), axis.get_ylim()]), axis=1) * (0.022, 0.055)
    placed: list[tuple[float, float, int]] = []
    medians = {label: np.median(points[labels == label], axis=0) for label in np.unique(labels)}
    for label, (x, median) in sorted(medians.items(), key=lambda one: one[1][1]):
        name, y = shorten(class_names[label], 12), median
        for other_x, other_y, length in placed:  # from bottom to top
            if abs(x - other_x) < width * (len(name) + length + 2) / 2 and abs(y - other_y) < height:
                y = other_y + height
        placed = sorted([*placed, (x, y, len(name))], key=lambda one: one[1])
        box = {"boxstyle": "round,pad=0.2", "facecolor": PAGE, "edgecolor": PALETTE[label % len(PALETTE)]}
        axis.text(x, y, name, ha="center", va="center", fontweight="bold", bbox=box)


def _map() -> Axes:
    (axis,) = panel(4.2)
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.margins(0.03)
    return axis


@styled
def confusion_matrix(counts: Int[np.ndarray, "classes classes"], class_names: Sequence[str]) -> Figure:
    """Draw target images by true class (rows) and predicted class (columns): right ones in blue, wrong ones in orange.

    Up to ten classes have counts in cells, whose opacity is the share of the row. Of more classes, the area of a square
    is the share of the row.
    """
    n = len(class_names)
    (axis,) = panel(4.4 if n <= SQUARE else max(4.4, 1.0 + 0.17 * n))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    if n <= COUNTED:
        _draw_counts(axis, counts, shares)
    else:
        _draw_squares(axis, shares)
    names = [shorten(name, 14) for name in class_names]
    rotation = 90 if max(map(len, names)) > 2 else 0
    axis.set_xticks(range(n) if n <= SQUARE else [], names if n <= SQUARE else [], rotation=rotation)
    axis.set_yticks(range(n) if n <= NAMED else [], names if n <= NAMED else [])
    axis.set(xlabel="predicted" if n <= SQUARE else "predicted, in the order of the rows", ylabel="true")
    axis.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    axis.grid(visible=False)
    axis.tick_params(length=0)
    if n <= SQUARE:
        axis.set_aspect("equal")
    return figure_of(axis)


def _draw_counts(axis: Axes, counts: Int[np.ndarray, "n n"], shares: Float[np.ndarray, "n n"]) -> None:
    n = len(counts)
    cells = np.where(np.eye(n, dtype=bool)[..., None], to_rgba(BLUE), to_rgba(ORANGE))
    cells[..., 3] = STRONGEST * shares
    edges = np.arange(n + 1) - 0.5
    axis.pcolormesh(edges, edges, cells, gid="cells")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axis.text(column, row, f"{count}", ha="center", va="center")


def _draw_squares(axis: Axes, shares: Float[np.ndarray, "n n"]) -> None:
    for colour, drawn in ((BLUE, np.eye(len(shares), dtype=bool)), (ORANGE, ~np.eye(len(shares), dtype=bool))):
        rows, columns = np.nonzero(drawn & (shares > 0))
        sides = np.maximum(np.sqrt(shares[rows, columns]), SMALLEST)
        squares = [
            Rectangle((x - side / 2, y - side / 2), side, side) for x, y, side in zip(columns, rows, sides, strict=True)
        ]
        axis.add_collection(PatchCollection(squares, facecolor=colour, linewidth=0))


@styled
def reliability_diagram(reliability: Float[np.ndarray, "bins 3"]) -> Figure:
    """Draw accuracy by mean confidence of each bin that has images; columns: images, mean confidence, accuracy."""
    above, below = panel(4.2, rows=2, ratios=(3.0, 1.0))
    counts, confidence, accuracy = reliability.T
    edges = np.linspace(0, 1, len(counts) + 1)
    seen = counts > 0
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHES[1], label="calibrated")
    above.vlines(confidence[seen], accuracy[seen], confidence[seen], color=ORANGE, linewidth=3, label="gap")
    above.plot(confidence[seen], accuracy[seen], "o-", color=BLUE, markersize=5, label="accuracy", clip_on=False)
    below.bar(edges[:-1], counts, np.diff(edges), align="edge", color=GREY, edgecolor=PAGE)
    percent_axis(above.yaxis)
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(-0.02, 1.02))
    below.set(ylabel="images", xlabel="confidence")
    percent_axis(below.xaxis)
    legend_above(above)
    return figure_of(above)
