"""What a run reports while it trains."""

from __future__ import annotations

from mutualign.evaluation.records import Alarm, EpochRecord
from mutualign.recipes import Recipe


class Observer:
    """Receives the progress of a run. This one ignores it; override what you want to show."""

    def begin(self, recipe: Recipe, task: str, seed: int) -> None:
        """A run starts or resumes."""

    def expects(self, seconds: float) -> None:
        """Training will take about so long; reported of runs that train a whole network on photos on a CPU."""

    def step(self, stage: int, done: int, total: int) -> None:
        """A training step of a stage is done."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is recorded."""

    def alarm(self, alarm: Alarm) -> None:
        """The audit raises an alarm."""

    def damaged(self, fault: str) -> None:
        """A damaged checkpoint was set aside; training resumes from the one before it."""
