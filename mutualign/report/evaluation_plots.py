"""Figures of outputs and features at one epoch: data in, matplotlib figure out; nothing is read or written here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from mutualign.report.drawing import (
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
    TEXT,
    figure_of,
    legend_above,
    panel,
    percent_axis,
    shorten,
    styled,
)

COUNTED = 15  # classes whose counts stand in the confusion matrix


@styled
def embedding_by_domain(points: Float[np.ndarray, "n 2"], is_source: Bool[np.ndarray, " n"]) -> Figure:
    """Where features lie, coloured by domain."""
    (axis,) = _map()
    for rows, colour, marker, name in ((is_source, SOURCE, "o", "source"), (~is_source, TARGET, "^", "target")):
        x, y = points[rows].T
        axis.scatter(x, y, s=9, c=colour, marker=marker, alpha=0.6, linewidths=0, rasterized=True, label=name)
    figure = figure_of(axis)
    legend = figure.legend(loc="outside upper left", ncols=2, markerscale=2)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
            handle.set_rasterized(False)
    return figure


@styled
def embedding_by_class(
    points: Float[np.ndarray, "n 2"],
    is_source: Bool[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    class_names: Sequence[str],
) -> Figure:
    """Where features lie, coloured by class, source pale; each class named where its target images are (median)."""
    (axis,) = _map()
    for number, name in enumerate(class_names):
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number // len(PALETTE) % len(MARKERS)]
        for rows, alpha in ((is_source & (labels == number), 0.28), (~is_source & (labels == number), 0.9)):
            axis.scatter(
                points[rows, 0],
                points[rows, 1],
                s=10,
                c=colour,
                marker=marker,
                alpha=alpha,
                linewidths=0,
                rasterized=True,
            )
        own = points[~is_source & (labels == number)]
        if len(own) and len(class_names) <= NAMED:
            box = {"boxstyle": "round,pad=0.2", "facecolor": PAGE, "edgecolor": colour, "alpha": 0.85}
            x, y = np.median(own, axis=0)
            axis.text(x, y, shorten(name, 12), ha="center", va="center", fontsize=9, fontweight="bold", bbox=box)
    figure_of(axis).suptitle("pale: source, full: target", x=0.01, ha="left", fontsize=9, color=MUTED)
    return figure_of(axis)


def _map() -> list[Axes]:
    axes = panel(5.2, 4.9)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.spines[["left", "bottom"]].set_visible(False)
        axis.margins(0.03)
    return axes


@styled
def confusion_matrix(counts: Int[np.ndarray, "classes classes"], class_names: Sequence[str]) -> Figure:
    """Counts of target images by true class (rows) and predicted class (columns); each row coloured by its shares."""
    n = len(class_names)
    side = min(6.4, max(3.6, 1.4 + 0.4 * n))
    (axis,) = panel(side, side)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cells = np.zeros((n, n, 4)) + to_rgba(BLUE)
    cells[..., 3] = shares
    edges = np.arange(n + 1) - 0.5
    axis.pcolormesh(edges, edges, cells, rasterized=n > COUNTED)
    if n <= COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.75 else TEXT
                axis.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8.5)
    if n <= NAMED:
        names = [shorten(name, 14) for name in class_names]
        turned = 90 if max(map(len, names)) > 3 else 0
        axis.set_xticks(range(n), names, rotation=turned)
        axis.set_yticks(range(n), names)
    axis.set(xlabel="predicted", ylabel="true")
    axis.grid(visible=False)
    axis.tick_params(length=0)
    axis.invert_yaxis()
    axis.set_aspect("equal")
    return figure_of(axis)


@styled
def reliability_diagram(reliability: Float[np.ndarray, "bins 3"]) -> Figure:
    """Accuracy by mean top probability in each bin that has images; columns: images, mean top probability, accuracy."""
    above, below = panel(5.2, 4.6, rows=2, ratios=(3.0, 1.0))
    counts, confidence, accuracy = reliability.T
    edges = np.linspace(0, 1, len(counts) + 1)
    seen = counts > 0
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHES[1], label="as sure as it is right")
    above.vlines(confidence[seen], accuracy[seen], confidence[seen], color=ORANGE, linewidth=3, alpha=0.5, label="gap")
    above.plot(confidence[seen], accuracy[seen], "o-", color=BLUE, markersize=5, label="accuracy", clip_on=False)
    below.bar(edges[:-1], counts, np.diff(edges), align="edge", color=GREY, edgecolor=PAGE)
    percent_axis(above.yaxis)
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(-0.02, 1.02))
    below.set(ylabel="images", xlabel="top probability")
    percent_axis(below.xaxis)
    legend_above(above)
    return figure_of(above)
