"""Figures of a sweep. Data in, matplotlib figure out; nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mutualign.report.figure_style import (
    BLUE,
    GREY,
    MUTED,
    ORANGE,
    WIDTH,
    accuracy_axis,
    figure_of,
    panel,
    shorten,
    styled,
)

Value = float | int | str | bool


@styled
def history(scores: Sequence[tuple[int, float]], score_name: str) -> Figure:
    """Draw the score of each complete trial by its number, and the best so far as a line."""
    (axis,) = panel(2.8)
    numbers, values = (np.array(part) for part in zip(*scores, strict=True))
    axis.plot(numbers, values, "o", color=GREY, markersize=4)
    axis.step(numbers, np.maximum.accumulate(values), where="post", color=BLUE)
    axis.set_xlabel("trial")
    axis.set_ylabel(score_name)
    return figure_of(axis)


@styled
def importances(shares: Mapping[str, float]) -> Figure:
    """Draw how much of the score's variance each parameter explains."""
    (axis,) = panel(1.0 + 0.32 * len(shares))
    names, values = list(shares)[::-1], list(shares.values())[::-1]
    axis.barh(range(len(names)), values, color=BLUE, height=0.6)
    axis.set_yticks(range(len(names)), [shorten(name.removeprefix("stages."), 30) for name in names])
    axis.set_xlabel("share of the score's variance")
    axis.set_xlim(0, 1)
    return figure_of(axis)


@styled
def parallel_coordinates(trials: Sequence[tuple[Mapping[str, Value], float]], log: Sequence[str]) -> Figure:
    """Draw a line per trial through its parameters, each on a scale of its own from low to high; darker is better."""
    (axis,) = panel(3.4)
    names = list(trials[0][0])
    scales = {name: _scale([params[name] for params, _ in trials], log=name in log) for name in names}
    ranked = sorted(trials, key=lambda trial: trial[1])
    colours = mpl.colormaps["Blues"](np.linspace(0.15, 1, len(ranked)))
    for (params, _), colour in zip(ranked, colours, strict=True):
        axis.plot(range(len(names)), [scales[name][params[name]] for name in names], color=colour, linewidth=1.2)
    best = ranked[-1][0]
    axis.plot(range(len(names)), [scales[name][best[name]] for name in names], "o-", color=ORANGE, linewidth=2)
    axis.set_xticks(range(len(names)), [shorten(name.removeprefix("stages."), 24) for name in names], rotation=20)
    axis.set_yticks([])
    axis.set_ylim(-0.12, 1.12)
    for position, name in enumerate(names):
        low, high = (min(scales[name], key=lambda one: scales[name][one]), max(scales[name], key=scales[name].get))  # type: ignore[arg-type]
        axis.text(position, -0.04, _text(low), ha="center", va="top", fontsize=8, color=MUTED)
        axis.text(position, 1.04, _text(high), ha="center", va="bottom", fontsize=8, color=MUTED)
    figure_of(axis).set_size_inches(max(WIDTH, 1.1 * len(names)), 3.4)
    return figure_of(axis)


@styled
def score_by_accuracy(points: Sequence[tuple[float, float]], best: int, score_name: str) -> Figure:
    """Draw score and target accuracy of each trial in grey, and the chosen one in colour."""
    (axis,) = panel(3.0)
    scores, accuracies = zip(*points, strict=True)
    axis.plot(scores, accuracies, "o", color=GREY, markersize=4)
    axis.plot(scores[best], accuracies[best], "o", color=ORANGE, markersize=7)
    axis.set_xlabel(score_name)
    axis.set_ylabel("target accuracy (needs labels)")
    accuracy_axis(axis)
    return figure_of(axis)


def _scale(values: Sequence[Value], *, log: bool) -> dict[Value, float]:
    """Return the height of each value between 0 and 1: by size for numbers, by order for anything else."""
    different = list(dict.fromkeys(values))
    if any(isinstance(value, str | bool) for value in different):
        different.sort(key=str)
        return {value: number / max(len(different) - 1, 1) for number, value in enumerate(different)}
    sizes = np.array([float(value) for value in different])
    sizes = np.log(sizes) if log else sizes
    heights = (sizes - sizes.min()) / (np.ptp(sizes) or 1.0)
    return dict(zip(different, heights.tolist(), strict=True))


def _text(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else shorten(str(value), 10)
