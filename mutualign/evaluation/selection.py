"""Selection: which epoch to keep, and which run, by a validator's scores; no target label is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mutualign.errors import MutualignError, nearest
from mutualign.evaluation.records import EpochRecord
from mutualign.evaluation.validators import VALIDATORS


class Choice(NamedTuple):
    """A run's best epoch by a validator, beside its last one."""

    run: str
    epoch: int
    score: float
    last_epoch: int
    last_score: float


def best_epoch(epochs: Sequence[EpochRecord], validator: str) -> EpochRecord:
    """The epoch with the highest score; of equal ones the first."""
    return max(epochs, key=lambda epoch: epoch.scores[validator])


def rank(runs: Mapping[str, Sequence[EpochRecord]], validator: str) -> list[Choice]:
    """The best epoch of each run's last stage, the highest score first; `runs` holds the records of each by name.

    Raises MutualignError for an unknown validator, a run without an epoch, and one that has no such score.
    """
    if validator not in VALIDATORS:
        raise MutualignError(f'unknown validator "{validator}"; {nearest(validator, VALIDATORS)}')
    choices = []
    for name, records in runs.items():
        if not records:
            raise MutualignError(f"{name}: no epoch is complete yet")
        epochs = [record for record in records if record.stage == records[-1].stage]
        if any(validator not in epoch.scores for epoch in epochs):
            known = ", ".join(epochs[0].scores)
            raise MutualignError(f"{name}: was not scored by {validator}, but by: {known}")
        best, last = best_epoch(epochs, validator), epochs[-1]
        choices.append(Choice(name, best.epoch, best.scores[validator], last.epoch, last.scores[validator]))
    return sorted(choices, key=lambda choice: -choice.score)
