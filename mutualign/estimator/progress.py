"""What a fit shows if it is asked to: a line an epoch."""

from __future__ import annotations

import sys

from mutualign.evidence.validators import DEFAULT_VALIDATOR
from mutualign.experiment import Display
from mutualign.recipes import Recipe
from mutualign.training.runs import Record


class EpochLines(Display):
    """Each epoch's label-free score and accuracy on held-out source images, on standard error.

    Alarms are left to the warnings that come at the end.
    """

    def begin(self, recipe: Recipe, task: str, seed: int) -> None:
        self.recipe = recipe

    def epoch(self, record: Record) -> None:
        stages = self.recipe.stages
        stage = stages[record["stage"]]
        print(
            f"{self.recipe.name}: stage {record['stage'] + 1}/{len(stages)} ({stage.algorithm}), epoch "
            f"{record['epoch']}/{stage.epochs}  label-free score {record['scores'][DEFAULT_VALIDATOR]:.3f}  "
            f"source {record['source_accuracy']:.1%}  {record['train_seconds']:.0f} s",
            file=sys.stderr,
        )
