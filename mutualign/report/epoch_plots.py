"""Figures of a run over its epochs. Data in, matplotlib figure out; nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mutualign.report.figure_style import (
    GREEN,
    MUTED,
    PALETTE,
    SOURCE,
    TARGET,
    TEXT,
    accuracy_axis,
    curve,
    epoch_axis,
    figure_of,
    legend_above,
    log_ticks,
    panel,
    percent_axis,
    shorten,
    styled,
)

Curve = Sequence[float | None]  # one value per epoch; None where it was not measured


class Stages:
    """The epochs of all stages in one row: the length and name of each stage, and the selected epoch, from 1."""

    def __init__(self, lengths: Sequence[int], names: Sequence[str], selected: int) -> None:
        self.lengths, self.names, self.selected = list(lengths), list(names), selected

    def mark(self, axis: Axes) -> None:
        """Draw and name the borders between stages, and a dashed line at the selected epoch."""
        begins = 0.5
        for length, name in zip(self.lengths, self.names, strict=True):
            if begins > 1:
                axis.axvline(begins, color=MUTED, linewidth=0.8)
            if len(self.lengths) > 1:
                axis.annotate(
                    shorten(name, 14), (begins, 1), (4, 2), ("data", "axes fraction"), "offset points", color=MUTED
                )
            begins += length
        axis.axvline(self.selected, color=TEXT, linewidth=1, linestyle=(0, (3, 3)))
        margin = max(0.3, 0.015 * begins)
        axis.set_xlim(1 - margin, begins - 0.5 + margin)


@styled
def accuracy_curves(accuracies: Mapping[str, Curve], stages: Stages) -> Figure:
    """Draw target and source accuracy by epoch."""
    (axis,) = panel()
    for name, values in accuracies.items():
        curve(axis, values, {"target": TARGET, "source": SOURCE}[name], f"{name} accuracy")
    stages.mark(axis)
    accuracy_axis(axis)
    epoch_axis(axis)
    legend_above(axis)
    return figure_of(axis)


@styled
def score_curve(score: Curve, name: str, stages: Stages) -> Figure:
    """Draw the label-free score by epoch, and the selected epoch."""
    (axis,) = panel()
    curve(axis, score, GREEN, name)
    value = score[stages.selected - 1]
    if value is not None:
        axis.plot([stages.selected], [value], "D", color=GREEN, markersize=8, label="selected epoch")
    stages.mark(axis)
    axis.set_ylabel("score")
    epoch_axis(axis)
    legend_above(axis)
    return figure_of(axis)


@styled
def shares_by_epoch(curves: Mapping[str, Curve], stages: Stages) -> Figure:
    """Draw shares between 0 and 1, such as coverage and precision of pseudo-labels, by epoch."""
    (axis,) = panel()
    for (name, values), colour in zip(curves.items(), PALETTE, strict=False):
        curve(axis, values, colour, name)
    stages.mark(axis)
    highest = max(value for values in curves.values() for value in values if value is not None)
    axis.set_ylim(*((-0.03, 1.03) if highest > 0.5 else (0, max(1.1 * highest, 0.01))))
    percent_axis(axis.yaxis)
    epoch_axis(axis)
    legend_above(axis)
    return figure_of(axis)


@styled
def gradient_norms(norms: Mapping[str, Curve], stages: Stages) -> Figure:
    """Draw the gradient norm of each loss by epoch on a log scale; 0 is drawn on the lower edge."""
    (axis,) = panel()
    positive = [value for values in norms.values() for value in values if value]
    floor = 10 ** np.floor(np.log10(min(positive, default=1.0)) - 0.5)
    for (name, values), colour in zip(norms.items(), PALETTE, strict=False):
        curve(axis, [None if value is None else max(value, floor) for value in values], colour, name)
    stages.mark(axis)
    axis.set_yscale("log")
    axis.set_ylim(bottom=floor)
    log_ticks(axis.yaxis)
    axis.set_ylabel("gradient norm")
    epoch_axis(axis)
    legend_above(axis)
    return figure_of(axis)
