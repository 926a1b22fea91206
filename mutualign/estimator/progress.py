"""What a verbose fit prints: one line per epoch."""

from __future__ import annotations

import sys

from mutualign.evaluation.records import EpochRecord
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.io.numbers import percent
from mutualign.recipes import Recipe
from mutualign.runs.observer import Observer


class EpochLines(Observer):
    """Prints each epoch's label-free score and accuracy on held-out source images to standard error.

    Alarms become warnings at the end of the fit.
    """

    def begin(self, recipe: Recipe, task: str, seed: int) -> None:
        self.recipe = recipe

    def epoch(self, record: EpochRecord) -> None:
        stages = self.recipe.stages
        print(
            f"{self.recipe.name}: stage {record.stage + 1}/{len(stages)} ({record.method}), epoch "
            f"{record.epoch}/{stages[record.stage].epochs}  label-free score {record.scores[DEFAULT_VALIDATOR]:.3f}  "
            f"source {percent(record.source_accuracy)}  {record.train_seconds:.0f} s",
            file=sys.stderr,
        )
