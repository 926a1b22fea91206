"""The tensors of a run: checkpoints to resume from, weights and outputs of chosen epochs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from mutualign.errors import MutualignError
from mutualign.io.atomic import write_atomically
from mutualign.io.tensors import pack, unpack
from mutualign.io.typed import decode_typed, parse_typed, to_plain
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
    stage-N-last, -selected        classifier weights of a stage's last epoch and of the one chosen without labels
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
        return self._load_finite(f"stage-{stage}-{which}")

    def save_outputs(self, stage: int, which: Which, outputs: Mapping[str, Tensor], info: EpochInfo) -> None:
        """Write the classifier's outputs for test images."""
        self.save(f"stage-{stage}-{which}-outputs", outputs, to_plain(info))

    def has_outputs(self, stage: int, which: Which) -> bool:
        """Whether the outputs exist; early versions kept none."""
        return self.has(f"stage-{stage}-{which}-outputs")

    def load_outputs(self, stage: int, which: Which) -> tuple[dict[str, Tensor], EpochInfo]:
        """Read the classifier's outputs for test images, and the epoch they belong to.

        source_logits [n, classes], source_labels [n], target_logits [m, classes], and features of some of the images.
        Raises MutualignError that names the file if it is damaged or missing, has other tensors, or is not finite.
        """
        name = f"stage-{stage}-{which}-outputs"
        tensors, info = self._load_finite(name)
        if not _are_outputs(tensors):
            raise MutualignError(f"{self._file(name)}: not the outputs of a classifier: it has {_shapes(tensors)}")
        return tensors, info

    def _load_finite(self, name: str) -> tuple[dict[str, Tensor], EpochInfo]:
        tensors, info = self.load(name)
        if broken := [key for key, value in tensors.items() if not torch.isfinite(value).all()]:
            raise MutualignError(
                f"{self._file(name)}: {broken[0]} is not finite\n"
                "  hint:    restore the file from a copy, or train the run again in another folder"
            )
        return tensors, self._typed(info, EpochInfo, name)

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


def _are_outputs(tensors: Mapping[str, Tensor]) -> bool:
    """Whether logits and labels exist and belong together."""
    try:
        source, labels, target = (tensors[name] for name in ("source_logits", "source_labels", "target_logits"))
    except KeyError:
        return False
    shaped = (
        source.dim() == target.dim() == 2 and source.shape[1] == target.shape[1] and labels.shape == source.shape[:1]
    )
    typed = source.is_floating_point() and target.is_floating_point() and labels.dtype == torch.int64
    filled = shaped and typed and source.numel() > 0 and target.numel() > 0
    return filled and int(labels.min()) >= 0 and int(labels.max()) < source.shape[1]


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items())) or "no tensors"
