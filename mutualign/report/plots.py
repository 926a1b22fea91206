"""Figures of a run by epoch: data in, matplotlib figure out; nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from mutualign.report.drawing import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    MARKERS,
    MUTED,
    NAMED,
    ORANGE,
    PAGE,
    PALETTE,
    PURPLE,
    SOURCE,
    TARGET,
    TEXT,
    epoch_axis,
    figure_of,
    legend_above,
    panel,
    percent_axis,
    plain_axis,
    shorten,
    styled,
)

Curve = Sequence[float | None]  # a value an epoch, or None where it was not measured

MANY_CELLS = 400  # from which on cells are pixels
MANY_EPOCHS = 40  # from which on a curve has no dot an epoch


class Stages:
    """Epochs of all stages in one row: where each stage begins, and the chosen epoch; all counted from 1."""

    def __init__(self, lengths: Sequence[int], names: Sequence[str], chosen: int) -> None:
        self.lengths, self.names, self.chosen = list(lengths), list(names), chosen

    def mark(self, axis: Axes, titles: bool = False) -> None:
        """Draw a border between stages and a dashed line at the chosen epoch; with `titles` name them too."""
        begins = 0.5
        for length, name in zip(self.lengths, self.names, strict=True):
            if begins > 1:
                axis.axvline(begins, color=MUTED, linewidth=0.8)
            if titles and len(self.lengths) > 1:
                axis.annotate(
                    shorten(name), (begins, 1), (4, 2), ("data", "axes fraction"), "offset points", color=MUTED
                )
            begins += length
        axis.axvline(self.chosen, color=TEXT, linewidth=1, linestyle=(0, (3, 3)))
        margin = max(0.3, 0.015 * begins)
        axis.set_xlim(1 - margin, begins - 0.5 + margin)


@styled
def learning_curves(
    accuracies: Mapping[str, Curve], score: Curve, score_name: str, chosen: int, stages: Stages
) -> Figure:
    """Accuracies by epoch, and below them the label-free score that chose the epoch."""
    above, below = panel(7.2, 4.6, rows=2, ratios=(2.0, 1.15))
    colours = {"target": TARGET, "source": SOURCE}
    for name, curve in accuracies.items():
        _curve(above, curve, colours.get(name, GREY), f"{name} accuracy")
    _curve(below, score, GREEN, score_name)
    below.plot(*_point(score, chosen), "D", color=GREEN, markersize=8, label=f"epoch chosen by it: {chosen}")
    stages.mark(above, titles=True)
    stages.mark(below)
    above.set_ylabel("accuracy")
    below.set_ylabel("score")
    percent_axis(above.yaxis)
    epoch_axis(below)
    legend_above(above, below)
    return figure_of(above)


@styled
def shares_by_epoch(curves: Mapping[str, Curve], stages: Stages) -> Figure:
    """Shares between 0 and 1, such as coverage and precision of pseudo-labels, by epoch."""
    (axis,) = panel()
    for (name, curve), colour in zip(curves.items(), PALETTE, strict=False):
        _curve(axis, curve, colour, name)
    stages.mark(axis)
    highest = max(value for curve in curves.values() for value in curve if value is not None)
    axis.set_ylim(*((-0.03, 1.03) if highest > 0.5 else (0, max(1.1 * highest, 0.01))))
    percent_axis(axis.yaxis)
    epoch_axis(axis)
    legend_above(axis, columns=3)
    return figure_of(axis)


@styled
def gradient_norms(norms: Mapping[str, Curve], stages: Stages) -> Figure:
    """The norm of each loss's gradient at the features by epoch, on a log scale; 0 lies on the lower edge."""
    (axis,) = panel()
    positive = [value for curve in norms.values() for value in curve if value]
    floor = 10 ** np.floor(np.log10(min(positive, default=1.0)) - 0.5)
    for (name, curve), colour in zip(norms.items(), PALETTE, strict=False):
        _curve(axis, [None if value is None else max(value, floor) for value in curve], colour, name)
    stages.mark(axis)
    axis.set_yscale("log")
    plain_axis(axis.yaxis)
    axis.minorticks_off()
    axis.set_ylim(bottom=floor)
    axis.set_ylabel("gradient norm")
    epoch_axis(axis)
    legend_above(axis)
    return figure_of(axis)


@styled
def class_shares(shares: Mapping[str, Sequence[float]], class_names: Sequence[str]) -> Figure:
    """How often each class occurs: the first of `shares` as bars, the others as marks over them."""
    n = len(class_names)
    (axis,) = panel(height=max(3.2, 0.9 + 0.24 * n) if n <= NAMED else 3.2)
    (first, bars), *others = shares.items()
    rows = np.arange(n)
    if n <= NAMED:
        axis.barh(rows, bars, color=SOURCE, alpha=0.35, height=0.72, label=first)
        axis.set_yticks(rows, [shorten(name) for name in class_names])
        axis.invert_yaxis()
        axis.grid(visible=False)
        for (name, values), colour, marker in zip(others, (ORANGE, GREEN, PURPLE), ("o", "D", "|"), strict=False):
            axis.plot(values, rows, marker, color=colour, markersize=6, markeredgewidth=1.6, label=name)
        percent_axis(axis.xaxis)
    else:
        axis.bar(rows, bars, color=SOURCE, alpha=0.35, width=1, label=first)
        for (name, values), colour in zip(others, (ORANGE, GREEN, PURPLE), strict=False):
            axis.plot(rows, values, ".", color=colour, label=name)
        axis.set_xlabel("class, by number")
        percent_axis(axis.yaxis)
    legend_above(axis, columns=3)
    return figure_of(axis)


@styled
def shares_heatmap(
    shares: Sequence[Sequence[float]], prior: Sequence[float], class_names: Sequence[str], stages: Stages
) -> Figure:
    """Predicted shares of each class by epoch: orange above the prior, blue below; full if off by all of it."""
    n = len(class_names)
    (axis,) = panel(height=max(3.2, 0.9 + 0.24 * n) if n <= NAMED else 3.2)
    expected = np.array(prior)[:, None]
    excess = np.clip((np.array(shares).T - expected) / np.maximum(expected, 1e-9), -1, 1)
    cells = np.where((excess > 0)[..., None], to_rgba(ORANGE), to_rgba(BLUE))
    cells[..., 3] = np.abs(excess)
    epochs, rows = np.arange(len(shares) + 1) + 0.5, np.arange(n + 1) - 0.5
    axis.pcolormesh(epochs, rows, cells, rasterized=cells[..., 0].size > MANY_CELLS)
    if n <= NAMED:
        axis.set_yticks(range(n), [shorten(name) for name in class_names])
    else:
        axis.set_ylabel("class, by number")
    axis.invert_yaxis()
    axis.grid(visible=False)
    stages.mark(axis)
    axis.set_xlim(epochs[0], epochs[-1])
    epoch_axis(axis)
    return figure_of(axis)


@styled
def confidence_histograms(histograms: Mapping[str, Sequence[float]]) -> Figure:
    """Shares of images by top probability: the first as bars, others as outlines."""
    (axis,) = panel()
    for number, ((name, shares), colour) in enumerate(zip(histograms.items(), (TARGET, GREY, BLUE), strict=False)):
        edges = np.linspace(0, 1, len(shares) + 1)
        if number == 0:
            axis.bar(edges[:-1], shares, np.diff(edges), align="edge", color=colour, edgecolor=PAGE, label=name)
        else:
            axis.stairs(shares, edges, color=colour, linewidth=1.6, label=name)
    percent_axis(axis.yaxis)
    percent_axis(axis.xaxis)
    axis.set_xlabel("top probability")
    axis.set_ylabel("share of target images")
    axis.grid(visible=False, axis="x")
    legend_above(axis)
    return figure_of(axis)


def _point(curve: Curve, epoch: int) -> tuple[list[int], list[float]]:
    value = curve[epoch - 1]
    return ([], []) if value is None else ([epoch], [value])


def _curve(axis: Axes, values: Curve, colour: str, label: str) -> None:
    """A line over epochs 1, 2, ..., with gaps where there is no value."""
    shown = np.array([np.nan if value is None else value for value in values], dtype=float)
    marker = "o" if len(values) <= MANY_EPOCHS else ""
    axis.plot(np.arange(len(shown)) + 1, shown, color=colour, marker=marker, markersize=4, label=label)


@styled
def score_against_accuracy(points: Mapping[str, Sequence[tuple[float, float]]], score_name: str) -> Figure:
    """A dot an epoch of (label-free score, target accuracy): a colour and a shape a recipe."""
    (axis,) = panel(5.2, 3.8)
    for number, (recipe, epochs) in enumerate(points.items()):
        scores, accuracy = zip(*epochs, strict=True)
        marker, colour = MARKERS[number % len(MARKERS)], PALETTE[number % len(PALETTE)]
        axis.plot(scores, accuracy, marker, color=colour, markersize=4, alpha=0.7, label=shorten(recipe))
    axis.set_xlabel(score_name)
    axis.set_ylabel("target accuracy (needs labels)")
    percent_axis(axis.yaxis)
    legend_above(axis)
    return figure_of(axis)


@styled
def recipe_curves(curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> Figure:
    """Target accuracy over seconds of training: a colour and a dash a recipe, a line a seed of (seconds, accuracy)."""
    (axis,) = panel(7.2, 3.8)
    for number, (recipe, seeds) in enumerate(curves.items()):
        style = DASHES[number // len(PALETTE) % len(DASHES)]
        for seed, points in enumerate(seeds):
            seconds, accuracy = zip(*points, strict=True)
            label = shorten(recipe) if seed == 0 else None
            axis.plot(seconds, accuracy, color=PALETTE[number % len(PALETTE)], linestyle=style, alpha=0.8, label=label)
    axis.set_xscale("log")
    plain_axis(axis.xaxis)
    axis.set_xlabel("seconds of training of the last stage")
    axis.set_ylabel("target accuracy (needs labels)")
    percent_axis(axis.yaxis)
    legend_above(axis)
    return figure_of(axis)
