"""Figures that compare recipes. Data in, matplotlib figure out; nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mutualign.report.figure_style import (
    DASHES,
    MANY_EPOCHS,
    MARKERS,
    PALETTE,
    accuracy_axis,
    figure_of,
    legend_above,
    log_ticks,
    panel,
    shorten,
    styled,
)

Points = Sequence[tuple[float, float]]

SHORTEST = 0.01  # seconds; recorded times are rounded to hundredths, and 0 has no place on a log scale


@styled
def recipe_curves(curves: Mapping[str, Sequence[Points]], label: str, *, shares: bool = False) -> Figure:
    """Draw values over seconds of training: one colour and dash per recipe, one line per seed.

    `curves` holds (seconds, value) of each epoch by recipe and seed; with `shares`, values are percentages.
    """
    (axis,) = panel(3.4)
    for number, (recipe, seeds) in enumerate(curves.items()):
        style = DASHES[number // len(PALETTE) % len(DASHES)]
        for seed, points in enumerate(seeds):
            seconds, values = zip(*points, strict=True)
            axis.plot(
                [max(second, SHORTEST) for second in seconds],
                values,
                color=PALETTE[number % len(PALETTE)],
                linestyle=style,
                marker="o" if len(points) <= MANY_EPOCHS else "",
                markersize=3,
                label=shorten(recipe) if seed == 0 else None,
            )
    axis.set_xscale("log")
    log_ticks(axis.xaxis)
    axis.set_xlabel("seconds of training of the last stage")
    axis.set_ylabel(label)
    if shares:
        accuracy_axis(axis)
    legend_above(axis)
    return figure_of(axis)


@styled
def score_against_accuracy(points: Mapping[str, Points], score_name: str) -> Figure:
    """Draw one point per epoch: label-free score and target accuracy; one colour and shape per recipe."""
    (axis,) = panel(3.4)
    for number, (recipe, epochs) in enumerate(points.items()):
        scores, accuracy = zip(*epochs, strict=True)
        marker, colour = MARKERS[number % len(MARKERS)], PALETTE[number % len(PALETTE)]
        axis.plot(scores, accuracy, marker, color=colour, markersize=4, label=shorten(recipe))
    axis.set_xlabel(score_name)
    axis.set_ylabel("target accuracy (needs labels)")
    accuracy_axis(axis)
    legend_above(axis)
    return figure_of(axis)
