"""The tensors of a run: checkpoints to resume from, weights and outputs of chosen epochs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor

from mutualign.errors import MutualignError
from mutualign.evaluation.records import EpochRecord
from mutualign.io.atomic import write_atomically
from mutualign.io.tensors import pack, unpack
from mutualign.io.typed import decode_typed, parse_typed, to_plain
from mutualign.runs.kept import ReviewInfo, check_outputs, check_review, require_finite
from mutualign.runs.upgrade import upgrade_checkpoint
from mutualign.training.callbacks import Checkpoint

Which = Literal["last", "selected"]  # the last epoch of a stage, or the one chosen without labels
T = TypeVar("T")


@dataclass(frozen=True)
class EpochInfo:
    """The epoch that weights or outputs belong to."""

    stage: int
    epoch: int
    scores: dict[str, float]

    @classmethod
    def of(cls, record: EpochRecord) -> EpochInfo:
        """Return the epoch of a record."""
        return cls(record.stage, record.epoch, record.scores)


@dataclass(frozen=True)
class ResumeInfo:
    """Where training was when a checkpoint was written."""

    stage: int
    steps_done: int
    train_seconds: float

    def __post_init__(self) -> None:
        if self.stage < 0 or self.steps_done < 0:
            raise ValueError(f"stage and steps_done must be 0 or more, got {self.stage} and {self.steps_done}")


class Checkpoints:
    """The folder `checkpoints` of a run.

    last, last-1, ...              everything that a resume needs, the newest first
    stage-N-last, -selected        classifier weights of a stage's last epoch and of the one chosen without labels;
                                   until the run is complete, chosen among the epochs before the last one
    stage-N-last-outputs, ...      logits and features of these weights for test images
    stage-N-predictions            predicted classes of target training images, by epoch
    review                         label-based diagnostics and sample images for the report
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    # Tensors by name --------------------------------------------------------------------------------------------------

    def save(self, name: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> None:
        """Write NAME.safetensors; `info`, plain data, goes into its header."""
        write_atomically(self._file(name), pack(tensors, {"info": json.dumps(info or {})}))

    def has(self, name: str) -> bool:
        """Whether NAME.safetensors exists."""
        return self._file(name).is_file()

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read tensors and info. Raises MutualignError that names the file if it is damaged or missing."""
        path = self._file(name)
        try:
            tensors, metadata = unpack(path)
            return tensors, decode_typed(metadata["info"], dict, "its info")
        except (OSError, ValueError, KeyError, MutualignError) as error:
            raise MutualignError(f"{path}: not a readable checkpoint: {error}") from error

    # Weights and outputs of a stage -----------------------------------------------------------------------------------

    def save_weights(self, stage: int, which: Which, weights: Mapping[str, Tensor], info: EpochInfo) -> None:
        """Write the classifier's weights at an epoch."""
        self.save(f"stage-{stage}-{which}", weights, to_plain(info))

    def load_weights(self, stage: int, which: Which) -> tuple[dict[str, Tensor], EpochInfo]:
        """Read the classifier's weights, and the epoch they belong to.

        Raises MutualignError that names the file if it is damaged or missing, or a weight is not finite.
        """
        name = f"stage-{stage}-{which}"
        tensors, info = self.load(name)
        with self._naming(name):
            require_finite(tensors)
        return tensors, self._typed(info, EpochInfo, name)

    def save_outputs(self, stage: int, which: Which, outputs: Mapping[str, Tensor], info: EpochInfo) -> None:
        """Write the classifier's outputs for test images."""
        self.save(f"stage-{stage}-{which}-outputs", outputs, to_plain(info))

    def has_outputs(self, stage: int, which: Which) -> bool:
        """Whether the outputs exist; early versions kept none."""
        return self.has(f"stage-{stage}-{which}-outputs")

    def load_outputs(self, stage: int, which: Which) -> tuple[dict[str, Tensor], EpochInfo]:
        """Read the classifier's outputs for test images, and the epoch they belong to.

        Raises MutualignError that names the file and the tensor if it is damaged or missing, or these are no `Outputs`.
        """
        name = f"stage-{stage}-{which}-outputs"
        tensors, info = self.load(name)
        with self._naming(name):
            check_outputs(tensors)
        return tensors, self._typed(info, EpochInfo, name)

    def load_review(self, outputs: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Read the review of the final classifier, and check that it is of the same images as its `outputs`.

        Raises MutualignError that names the file and the tensor if it is damaged or missing, or this is no `Review`.
        """
        tensors, info = self.load("review")
        classes = len(self._typed(info, ReviewInfo, "review").class_names)
        with self._naming("review"):
            check_review(tensors, classes, outputs)
        return tensors

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Context that turns a ValueError about the tensors of a file into one that names it."""
        try:
            yield
        except ValueError as error:
            hint = "restore the file from a copy, or train the run again in another folder"
            raise MutualignError(f"{self._file(name)}: {error}\n  hint:    {hint}") from error

    def _typed(self, info: Mapping[str, Any], expected: type[T], name: str) -> T:
        return parse_typed(info, expected, f"{self._file(name)}, info")

    # Checkpoints to resume from ---------------------------------------------------------------------------------------

    def save_resumable(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any], keep: int = 2) -> None:
        """Write `last`, and keep the `keep - 1` checkpoints before it as last-1, last-2, ...

        At any moment one of them is intact: the new one is on disk before the older ones move.
        """

        def move_older() -> None:
            older = self._resumable()[: keep - 1]
            for age, path in reversed(list(enumerate(older, start=1))):
                path.replace(self._file(f"last-{age}"))

        write_atomically(self._file("last"), pack(tensors, {"info": json.dumps(info)}), move_older)
        for path in self._resumable()[keep:]:
            path.unlink()

    def load_resumable(self) -> Checkpoint | None:
        """Read the newest intact checkpoint; None before the first one is written.

        Newer ones that are damaged are renamed to NAME.damaged. Raises MutualignError if none is intact.
        """
        faults: list[str] = []
        for path in self._resumable():
            try:
                tensors, info = self.load(path.stem)
                self._typed(info, ResumeInfo, path.stem)
            except MutualignError as error:
                faults.append(str(error))
                continue
            for damaged in self._resumable()[: len(faults)]:
                damaged.replace(damaged.with_suffix(".damaged"))
            return Checkpoint(upgrade_checkpoint(tensors), info, faults)
        if faults:
            shown = "\n".join(f"  damaged  {fault}" for fault in faults)
            raise MutualignError(
                f"{self.path.parent}: no intact checkpoint to resume from\n{shown}\n"
                "  hint:    start a new run with another --out"
            )
        return None

    def _resumable(self) -> list[Path]:
        """Checkpoints that a resume can start from, the newest first."""
        found = [path for path in self.path.glob("last*.safetensors") if _age(path) is not None]
        return sorted(found, key=lambda path: _age(path) or 0)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"


def _age(path: Path) -> int | None:
    """Return 0 for last, 1 for last-1, ..., None for other files."""
    _, dash, age = path.stem.partition("-")
    return 0 if path.stem == "last" else int(age) if dash and path.stem == f"last-{age}" and age.isdecimal() else None
