"""Figures of predicted classes and confidence. Data in, matplotlib figure out; nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mutualign.report.epoch_plots import Stages
from mutualign.report.figure_style import (
    BLUE,
    GREEN,
    GRID,
    MUTED,
    NAMED,
    ORANGE,
    PAGE,
    SOURCE,
    TARGET,
    TEXT,
    epoch_axis,
    figure_of,
    legend_above,
    panel,
    percent_axis,
    shorten,
    styled,
)

STRIP = 0.46  # of the distance between rows: the height of a strip


@styled
def class_shares(shares: Mapping[str, Sequence[float]], class_names: Sequence[str]) -> Figure:
    """Draw how frequent each class is: the first of `shares` as bars, the others as marks.

    Of more than 30 classes, those are shown whose shares differ most.
    """
    values = np.array(list(shares.values()))
    shown = _most_different(np.ptp(values, axis=0))
    axis = _class_panel(shown, class_names)
    rows = np.arange(len(shown))
    first, *others = shares
    axis.barh(rows, values[0][shown], height=0.72, color=SOURCE, label=first)
    marks = (("o", 10, TARGET), ("D", 5, GREEN))  # of equal shares, both are seen
    for name, each, (marker, size, colour) in zip(others, values[1:], marks, strict=False):
        # The edge sets a mark off from the bar below it.
        axis.plot(each[shown], rows, marker, color=colour, markersize=size, mec=PAGE, mew=1.2, label=name)
    percent_axis(axis.xaxis)
    legend_above(axis)
    return figure_of(axis)


@styled
def shares_by_class(
    shares: Sequence[Sequence[float]], prior: Sequence[float], class_names: Sequence[str], stages: Stages
) -> Figure:
    """Draw a strip per class over the epochs: up where it is predicted more often than the prior says, down where less.

    A strip is full at twice the prior, and at 0. Of more than 30 classes, those with the largest deviations are shown.
    """
    expected = np.array(prior)[:, None]
    excess = np.clip((np.array(shares).T - expected) / np.maximum(expected, 1e-9), -1, 1)
    shown = _most_different(np.abs(excess).max(axis=1))
    axis = _class_panel(shown, class_names)
    edges = np.arange(len(shares) + 1) + 0.5
    for row, label in enumerate(shown):
        axis.axhline(row, color=GRID, linewidth=0.7)
        for colour, heights in ((ORANGE, excess[label].clip(min=0)), (BLUE, excess[label].clip(max=0))):
            axis.stairs(row - STRIP * heights, edges, baseline=row, fill=True, color=colour, linewidth=0)
    stages.mark(axis)
    axis.set_xlim(edges[0], edges[-1])
    epoch_axis(axis)
    return figure_of(axis)


@styled
def confidence_histograms(histograms: Mapping[str, Sequence[float]]) -> Figure:
    """Draw shares of images by confidence: the first histogram as bars, others as outlines."""
    (axis,) = panel()
    for number, ((name, shares), colour) in enumerate(zip(histograms.items(), (TARGET, TEXT), strict=False)):
        edges = np.linspace(0, 1, len(shares) + 1)
        if number == 0:
            axis.bar(edges[:-1], shares, np.diff(edges), align="edge", color=colour, edgecolor=PAGE, label=name)
        else:
            axis.stairs(shares, edges, color=colour, linewidth=1.6, label=name)
    percent_axis(axis.yaxis)
    percent_axis(axis.xaxis)
    axis.set_xlim(0, 1)
    axis.set_xlabel("confidence")
    axis.set_ylabel("share of target images")
    axis.grid(visible=False, axis="x")
    legend_above(axis)
    return figure_of(axis)


def _most_different(differences: Float[np.ndarray, " classes"]) -> Int[np.ndarray, " shown"]:
    """Return the classes to show, in their order: up to 30, those with the largest differences."""
    return np.sort(np.argsort(-differences, kind="stable")[:NAMED])


def _class_panel(shown: Int[np.ndarray, " shown"], class_names: Sequence[str]) -> Axes:
    """Return axes with one named row per class, the first one on top."""
    (axis,) = panel(height=max(3.0, 0.9 + 0.24 * len(shown)))
    axis.set_yticks(range(len(shown)), [shorten(class_names[label]) for label in shown])
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.grid(visible=False)
    if len(shown) < len(class_names):
        note = f"{len(shown)} of {len(class_names)} classes: those that differ most"
        axis.set_title(note, loc="left", color=MUTED, fontsize=10)
    return axis
