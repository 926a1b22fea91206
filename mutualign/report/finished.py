"""What a finished run left in its folder, as a report needs it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from mutualign.errors import MutualignError
from mutualign.report.plots import Curve, Stages
from mutualign.runs.folder import Record, RunFolder


@dataclass(frozen=True)
class Run:
    """What a finished run left in its folder."""

    where: str
    config: dict[str, Any]
    config_text: str
    result: dict[str, Any]
    records: list[Record]
    outputs: dict[str, Tensor]  # of the last stage's selected epoch
    review: dict[str, Tensor]  # of the same; empty where there are no target labels

    @classmethod
    def read(cls, folder: RunFolder) -> Run:
        """Raises MutualignError if the run is not complete, or was made before runs kept what a report needs."""
        config, result = folder.config(), folder.result()
        if result is None:
            raise MutualignError(f"{folder.path} is not complete\n  do       `mutualign run --resume {folder.path}`")
        name = f"stage-{len(result['stages']) - 1}-selected-outputs"
        if not folder.has_checkpoint(name) or "class_names" not in result:
            raise MutualignError(
                f"{folder.path} was made by an older mutualign, which did not keep what a report shows\n"
                f"  missing  checkpoints/{name}.safetensors\n"
                f"  do       make it anew in another folder: {result['command']} --out OTHER"
            )
        review = folder.load_tensors("review")[0] if folder.has_checkpoint("review") else {}
        return cls(
            "/".join(folder.path.absolute().parts[-3:]),
            config,
            (folder.path / "config.toml").read_text(encoding="utf-8"),
            result,
            folder.metrics(),
            folder.load_tensors(name)[0],
            review,
        )

    @property
    def name(self) -> str:
        return str(self.result["recipe"])

    @property
    def selections(self) -> dict[str, Any]:
        """Of the last stage, by the way of choosing the epoch."""
        chosen: dict[str, Any] = self.result["stages"][-1]["selections"]
        return chosen

    @cached_property
    def validator(self) -> str:
        return next(name for name in self.selections if name.startswith("validator:")).removeprefix("validator:")

    @property
    def selected(self) -> dict[str, Any]:
        found: dict[str, Any] = self.selections[f"validator:{self.validator}"]
        return found

    @cached_property
    def stages(self) -> Stages:
        parts = self.result["stages"]
        lengths = [stage["epochs"] for stage in parts]
        names = [f"{number}: {stage['method']}" for number, stage in enumerate(parts, start=1)]
        return Stages(lengths, names, sum(lengths[:-1]) + self.selected["epoch"])

    @property
    def chosen_record(self) -> Record:
        return self.records[self.stages.chosen - 1]

    def curve(self, *keys: str) -> Curve:
        """A value by epoch over all stages, None where an epoch has none."""
        values: list[float | None] = []
        for record in self.records:
            found: Any = record
            for key in keys:
                found = found.get(key) if found is not None else None
            values.append(found)
        return values


def measured(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Those of the curves that have a value anywhere."""
    return {name: curve for name, curve in curves.items() if any(value is not None for value in curve)}


def percent(share: float | None, digits: int = 1) -> str:
    """For people: `95.6 %`, or a word where there is no such number."""
    return "unknown" if share is None else f"{100 * share:.{digits}f} %"
