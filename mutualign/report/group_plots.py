"""The figures of a comparison's page for runs on the same data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mutualign.evaluation.records import EpochRecord
from mutualign.report.comparison_data import ComparedRun
from mutualign.report.comparison_plots import recipe_curves, score_against_accuracy
from mutualign.report.page import Block, Plot
from mutualign.report.run_data import spaced

Read = Callable[[EpochRecord], float | None]
Systems = Mapping[str, Sequence[ComparedRun]]


def group_plots(anchor: str, validator: str | None, systems: Systems) -> list[Block]:
    """Draw target accuracy over time and against the label-free score that all runs have, else the score alone."""
    blocks: list[Block] = []
    accuracy = _curves(systems, lambda record: record.target_accuracy)
    if accuracy:
        blocks.append(
            Plot(
                f"curves-{anchor}",
                "Target accuracy over training time",
                "One line per seed; seconds on a log scale. Needs labels, which are read at every epoch for this "
                "curve; nothing is trained or selected by it. Times compare only between runs that had the machine "
                "to themselves.",
                recipe_curves(accuracy, "target accuracy (needs labels)", shares=True),
            )
        )
    if validator is None:
        return blocks
    points = {
        system: [
            (record.scores[validator], record.target_accuracy)
            for one in runs
            for record in one.run.last_records
            if record.target_accuracy is not None
        ]
        for system, runs in systems.items()
    }
    if any(points.values()):
        blocks.append(
            Plot(
                f"scores-{anchor}",
                "Label-free score and accuracy",
                "One point per epoch of each last stage. The better the points rise from left to right, the better "
                "the score ranks epochs and systems here. The accuracy needs labels; the score does not.",
                score_against_accuracy({name: found for name, found in points.items() if found}, spaced(validator)),
            )
        )
    else:
        blocks.append(
            Plot(
                f"curves-{anchor}",
                "Label-free score over training time",
                f"One line per seed; seconds on a log scale. Higher is better ({spaced(validator)}).",
                recipe_curves(_curves(systems, lambda record: record.scores[validator]), spaced(validator)),
            )
        )
    return blocks


def _curves(systems: Systems, read: Read) -> dict[str, list[list[tuple[float, float]]]]:
    """Return (seconds, value) of each epoch of the last stage, by system and run."""
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    for system, runs in systems.items():
        for one in runs:
            values = [(record.train_seconds, read(record)) for record in one.run.last_records]
            if points := [(seconds, value) for seconds, value in values if value is not None]:
                curves.setdefault(system, []).append(points)
    return curves
