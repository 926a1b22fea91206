"""The history and the result of a run, as types, and their summaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mutualign.evaluation.records import Alarm, EpochRecord
from mutualign.evaluation.selection import best_epoch
from mutualign.evaluation.verdict import Verdict


@dataclass(frozen=True)
class Selection:
    """A way to choose the epoch: the last one, the best by a validator, or the best by target labels."""

    kind: Literal["last", "validator", "oracle"]
    validator: str | None = None

    def __post_init__(self) -> None:
        if (self.kind == "validator") != bool(self.validator):
            raise ValueError(f"a selection of the kind {self.kind} with the validator {self.validator!r}")

    def __str__(self) -> str:
        """The form used in results files: `last`, `validator:NAME`, `oracle`."""
        return f"validator:{self.validator}" if self.kind == "validator" else self.kind

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Read the form that `str` returns. Raises ValueError for anything else."""
        kind, _, validator = text.partition(":")
        if kind == "validator" and validator:
            return cls("validator", validator)
        if text in ("last", "oracle"):
            return cls(text)  # type: ignore[arg-type]
        raise ValueError(f"no way to choose an epoch: {text!r}")


LAST, ORACLE = Selection("last"), Selection("oracle")


@dataclass(frozen=True)
class SelectedEpoch:
    """The epoch that a selection chooses, and the accuracies there."""

    selection: Selection
    epoch: int
    target_accuracy: float | None
    source_accuracy: float


@dataclass(frozen=True)
class StageResult:
    """A finished stage."""

    method: str
    epochs: int
    train_seconds: float
    selections: list[SelectedEpoch]

    def __post_init__(self) -> None:
        kinds = [one.selection.kind for one in self.selections]
        if not {"last", "validator"} <= set(kinds):
            raise ValueError(f"selections must contain last and one by a validator, got {', '.join(kinds) or 'none'}")
        if any(not 1 <= one.epoch <= self.epochs for one in self.selections):
            raise ValueError(f"selected epochs must be from 1 to {self.epochs}")

    @property
    def last(self) -> SelectedEpoch:
        """The last epoch."""
        return self._selected("last")

    @property
    def selected(self) -> SelectedEpoch:
        """The epoch chosen by a validator, without target labels."""
        return self._selected("validator")

    @property
    def oracle(self) -> SelectedEpoch | None:
        """The best epoch by target labels; None without target labels."""
        return next((one for one in self.selections if one.selection.kind == "oracle"), None)

    def _selected(self, kind: str) -> SelectedEpoch:
        return next(one for one in self.selections if one.selection.kind == kind)


@dataclass(frozen=True)
class StageAlarm(Alarm):
    """An alarm, and the stage that it belongs to."""

    stage: int


@dataclass(frozen=True)
class Result:
    """What result.json holds: a complete run."""

    recipe: str
    task: str
    data: str  # exact identity of the images
    seed: int
    command: str
    hardware: str
    versions: dict[str, str]
    stages: list[StageResult]
    created: str
    class_names: list[str]
    source_class_shares: list[float]
    alarms: list[StageAlarm]
    domain_accuracy: float | None = None  # how well pixels separate the domains: 0.5 is chance; None in early runs
    compared_with: str | None = None  # the source-only run that was used to check for negative transfer
    verdict: Verdict | None = (
        None  # None in early runs; at the end of the run; `verdict_of` also sees a source-only run that came later
    )


def first_gap(records: Sequence[EpochRecord]) -> int | None:
    """Return the position of the first record that does not follow the one before it; None if all do.

    Records start with epoch 1 of stage 0. Each is the next epoch of its stage, or epoch 1 of the next stage.
    """
    stage, epoch = 0, 0
    for position, record in enumerate(records):
        if (record.stage, record.epoch) not in ((stage, epoch + 1), *([(stage + 1, 1)] if epoch else [])):
            return position
        stage, epoch = record.stage, record.epoch
    return None


def epochs_by_stage(records: Sequence[EpochRecord]) -> list[int]:
    """Return the number of epochs of each stage that has any."""
    return [sum(record.stage == stage for record in records) for stage in sorted({record.stage for record in records})]


def summarise(records: Sequence[EpochRecord], validator: str) -> list[StageResult]:
    """Summarise stages: the last epoch, the best by the validator, and the best by target labels if there are any."""
    stages = []
    for index in sorted({record.stage for record in records}):
        epochs = [record for record in records if record.stage == index]
        last = epochs[-1]
        chosen = {LAST: last, Selection("validator", validator): best_epoch(epochs, validator)}
        if last.target_accuracy is not None:
            chosen[ORACLE] = max(epochs, key=lambda record: record.target_accuracy or 0.0)
        selections = [
            SelectedEpoch(selection, record.epoch, record.target_accuracy, record.source_accuracy)
            for selection, record in chosen.items()
        ]
        stages.append(StageResult(last.method, len(epochs), last.train_seconds, selections))
    return stages


def curves(epochs: Sequence[EpochRecord]) -> dict[str, list[float]]:
    """Return every number that all of the epochs have, as a curve by name."""
    flat = [_numbers(epoch) for epoch in epochs]
    if not flat:
        return {}
    return {name: [values[name] for values in flat] for name in flat[-1] if all(name in values for values in flat)}


def _numbers(epoch: EpochRecord) -> dict[str, float]:
    numbers: dict[str, float | None] = {
        "target_accuracy": epoch.target_accuracy,
        "source_accuracy": epoch.source_accuracy,
    }
    if epoch.pseudo_labels:
        numbers["pseudo_label_coverage"] = epoch.pseudo_labels.coverage
        numbers["pseudo_label_precision"] = epoch.pseudo_labels.precision
    numbers |= epoch.scores | epoch.means
    numbers |= {"teacher_agreement": epoch.audit.teacher_agreement, "drift": epoch.audit.drift}
    numbers |= {f"gradient_{name}": norm for name, norm in epoch.audit.gradients.items()}
    return {name: value for name, value in numbers.items() if value is not None}
