"""The data of a finished run that a report shows, read from its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from mutualign.errors import MutualignError
from mutualign.evaluation.records import EpochRecord
from mutualign.evaluation.verdict import Verdict
from mutualign.report.epoch_plots import Curve, Stages
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result, SelectedEpoch, StageAlarm, StageResult
from mutualign.runs.next_steps import current_alarms, current_verdict
from mutualign.runs.spec import RunConfig


@dataclass(frozen=True)
class FinishedRun:
    """A complete run. Outputs and review are empty if somebody has deleted their files."""

    folder: RunFolder
    config: RunConfig
    result: Result
    records: list[EpochRecord]
    outputs: Mapping[str, Tensor]  # of the last stage at the epoch selected without labels
    review: Mapping[str, Tensor]  # of the same epoch: images to look at, and comparisons with target labels

    @classmethod
    def read(cls, folder: RunFolder) -> FinishedRun:
        """Read a run. Raises MutualignError if the run is not complete, or a file is damaged."""
        config, result, records = folder.config(), folder.require_result(), folder.metrics()
        last, store = len(result.stages) - 1, folder.checkpoints
        outputs = store.load_outputs(last, "selected")[0] if store.has_outputs(last, "selected") else {}
        review = store.load_review(outputs or None) if store.has("review") else {}
        run = cls(folder, config, result, records, outputs, review)
        if outputs and len(run.class_names) != (classes := outputs["target_logits"].shape[1]):
            raise MutualignError(f"{folder.path}: {len(run.class_names)} class names, but outputs of {classes} classes")
        return run

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.config.recipe.name

    @property
    def class_names(self) -> list[str]:
        """The class names."""
        return self.result.class_names

    @property
    def has_target_labels(self) -> bool:
        """Whether the target accuracy is known."""
        return self.last_stage.last.target_accuracy is not None

    @property
    def last_stage(self) -> StageResult:
        """The result of the last stage."""
        return self.result.stages[-1]

    @property
    def selected(self) -> SelectedEpoch:
        """The epoch of the last stage that was selected without labels."""
        return self.last_stage.selected

    @property
    def validator(self) -> str:
        """The name of the label-free score that selected the epoch."""
        return str(self.selected.selection.validator)

    @property
    def score(self) -> float | None:
        """The label-free score of the selected epoch."""
        return self.selected_record.scores.get(self.validator)

    @property
    def last_records(self) -> list[EpochRecord]:
        """The epochs of the last stage."""
        return [record for record in self.records if record.stage == len(self.result.stages) - 1]

    @property
    def selected_record(self) -> EpochRecord:
        """The record of the selected epoch."""
        return next(record for record in self.last_records if record.epoch == self.selected.epoch)

    @property
    def train_seconds(self) -> float:
        """Seconds of training, all stages together."""
        return sum(stage.train_seconds for stage in self.result.stages)

    @cached_property
    def stages(self) -> Stages:
        """Where stages begin, and which epoch is selected, counted over all stages."""
        lengths = [stage.epochs for stage in self.result.stages]
        names = [f"{number}: {stage.method}" for number, stage in enumerate(self.result.stages, start=1)]
        return Stages(lengths, names, sum(lengths[:-1]) + self.selected.epoch)

    @cached_property
    def verdict(self) -> Verdict | None:
        """Whether adaptation helped; None without outputs."""
        return current_verdict(self.folder)

    @cached_property
    def alarms(self) -> list[StageAlarm]:
        """The alarms."""
        return current_alarms(self.result, self.verdict)

    @property
    def compared_with(self) -> str | None:
        """The source-only run that it was compared with at its end or, if that came later, is now; None without one."""
        return self.result.compared_with or (self.verdict.compared_with if self.verdict else None)

    @property
    def lacks_baseline(self) -> bool:
        """Whether it is an adapted run that was compared with no source-only run."""
        return self.compared_with is None and not self.config.recipe.is_source_only

    def curve(self, read: Callable[[EpochRecord], float | None]) -> Curve:
        """Return a value of each epoch, over all stages."""
        return [read(record) for record in self.records]


def measured(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Return the curves that have a value at any epoch."""
    return {name: curve for name, curve in curves.items() if any(value is not None for value in curve)}


def spaced(name: str) -> str:
    """Format a registry name for people: `class ami` for `class_ami`."""
    return name.replace("_", " ")
