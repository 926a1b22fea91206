"""Progress of an experiment in the terminal."""

from __future__ import annotations

from mutualign.training.runs import Record


class Console:
    """A line an epoch."""

    def step(self, stage: int, done: int, total: int) -> None:
        pass

    def epoch(self, record: Record) -> None:
        print(record, flush=True)
