"""What a fit shows if it is asked to: a line an epoch."""

from __future__ import annotations

import sys

from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.recipes import Recipe
from mutualign.runs.experiment import Observer
from mutualign.runs.folder import Record


class EpochLines(Observer):
    """Each epoch's label-free score and accuracy on held-out source images, on standard error.

    Alarms are left to the warnings that come at the end.
    """

    def begin(self, recipe: Recipe, task: str, seed: int) -> None:
        self.recipe = recipe

    def epoch(self, record: Record) -> None:
        stages = self.recipe.stages
        stage = stages[record["stage"]]
        print(
            f"{self.recipe.name}: stage {record['stage'] + 1}/{len(stages)} ({stage.method}), epoch "
            f"{record['epoch']}/{stage.epochs}  label-free score {record['scores'][DEFAULT_VALIDATOR]:.3f}  "
            f"source {record['source_accuracy']:.1%}  {record['train_seconds']:.0f} s",
            file=sys.stderr,
        )
