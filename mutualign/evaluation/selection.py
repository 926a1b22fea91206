"""Selection of epochs and runs by a validator's scores; no target label is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mutualign.errors import MutualignError, nearest
from mutualign.evaluation.records import EpochRecord
from mutualign.evaluation.validators import VALIDATORS


class Choice(NamedTuple):
    """A run's best epoch by a validator, and its last epoch for comparison."""

    run: str
    epoch: int
    score: float
    last_epoch: int
    last_score: float


def best_epoch(epochs: Sequence[EpochRecord], validator: str) -> EpochRecord:
    """Return the epoch with the highest score; the first of equal ones.

    Raises MutualignError if an epoch was not scored by the validator.
    """
    for epoch in epochs:
        if validator not in epoch.scores:
            known = ", ".join(epoch.scores) or "no validator"
            where = f"epoch {epoch.epoch} of stage {epoch.stage}"
            raise MutualignError(f"{where} was not scored by {validator}, but by: {known}")
    return max(epochs, key=lambda epoch: epoch.scores[validator])


def rank(runs: Mapping[str, Sequence[EpochRecord]], validator: str) -> list[Choice]:
    """Return the best epoch of each run's last stage, the highest score first; `runs` maps names to records.

    Raises MutualignError for an unknown validator, a run without a finished epoch, or a run without such scores.
    """
    if validator not in VALIDATORS:
        raise MutualignError(f'unknown validator "{validator}"; {nearest(validator, VALIDATORS)}')
    choices = []
    for name, records in runs.items():
        if not records:
            raise MutualignError(f"{name}: no epoch is complete yet")
        epochs = [record for record in records if record.stage == records[-1].stage]
        try:
            best, last = best_epoch(epochs, validator), epochs[-1]
        except MutualignError as error:
            raise MutualignError(f"{name}: {error}") from error
        choices.append(Choice(name, best.epoch, best.scores[validator], last.epoch, last.scores[validator]))
    return sorted(choices, key=lambda choice: -choice.score)
