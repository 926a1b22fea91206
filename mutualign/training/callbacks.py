"""The loop's connections to the outside: callbacks, and where and how often it writes checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from mutualign.errors import MutualignError
from mutualign.methods import Method


@dataclass(frozen=True)
class Epoch:
    """A finished epoch."""

    stage: int  # from 0
    number: int  # within the stage, from 1
    means: dict[str, float]  # of losses and metrics over the epoch's steps
    train_seconds: float  # of the stage so far: steps and their data, without evaluation


def _nothing(*_: Any) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Callbacks:
    """Functions that the loop calls; with several processes, only the first process calls the first two."""

    on_step: Callable[[int, int, int], None] = _nothing  # stage, steps done, steps in all
    on_epoch: Callable[[Method, Epoch], None] = _nothing  # before the epoch's checkpoint is written
    should_stop: Callable[[], bool] = lambda: False  # asked after each step; the loop then saves and raises Stopped


@dataclass(frozen=True)
class CheckpointPolicy:
    """How often checkpoints for resuming are written, and how many of the newest are kept.

    Raises MutualignError if `keep` is below 1 or `every` below 0.
    """

    every: float = 60.0  # seconds; one is also written after each epoch
    keep: int = 2

    def __post_init__(self) -> None:
        if self.keep < 1 or not self.every >= 0:
            raise MutualignError(
                f"checkpoints: keep must be 1 or more and the seconds between them 0 or more; "
                f"got {self.keep} and {self.every:g}"
            )


class Checkpoint(NamedTuple):
    """Tensors and plain data to resume from, and messages about newer checkpoints that are damaged."""

    tensors: dict[str, Tensor]
    info: dict[str, Any]
    damaged: list[str]


@runtime_checkable
class CheckpointStore(Protocol):
    """Where the loop writes its checkpoints: `runs.checkpoints.Checkpoints`, or a stand-in."""

    def save_resumable(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any], keep: int = 2) -> None:
        """Write a checkpoint and keep the newest `keep`."""

    def load_resumable(self) -> Checkpoint | None:
        """Return the newest intact checkpoint; None before the first one is written."""
