"""Batches: which images a step sees, as a function of (seed, stage, step)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from mutualign.data.types import Batch, LabelledImages, UnlabelledImages, to_floats
from mutualign.errors import MutualignError
from mutualign.nn.randomness import derive_seed, generator


class Rows(NamedTuple):
    """The rows of the training sets that form a batch."""

    source: Int64[Tensor, " source"]
    target: Int64[Tensor, " target"]


class EpochSampler:
    """Passes over `length` images, each in a new random order, cut into batches; the order depends on `key` only.

    The last batch of a pass may be smaller. A remainder of one image joins the batch before it, since batch
    normalisation cannot train on a single value per channel.
    """

    def __init__(self, length: int, batch_size: int, *key: int | str) -> None:
        self.length, self.batch_size, self.key = length, batch_size, key
        self.steps_per_pass = steps_per_pass(length, batch_size)
        self._pass, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> Int64[Tensor, " batch"]:
        """Return the rows of a step; steps may be asked for in any order."""
        number, within = divmod(step, self.steps_per_pass)
        if number != self._pass:
            self._pass, self._permutation = number, torch.randperm(self.length, generator=generator(*self.key, number))
        last = within == self.steps_per_pass - 1
        return self._permutation[within * self.batch_size : None if last else (within + 1) * self.batch_size]


def steps_per_pass(images: int, batch_size: int) -> int:
    """Return the number of batches in one pass over the images."""
    whole, rest = divmod(images, batch_size)
    joined = rest == 1 and whole > 0 and batch_size > 1
    return whole + (rest > 0 and not joined)


def steps_per_epoch(images: int, batch_size: int, epoch_steps: int) -> int:
    """Return the steps of one pass over the images, or of the fewest whole passes that reach `epoch_steps`."""
    steps = steps_per_pass(images, batch_size)
    return steps * max(1, -(-epoch_steps // steps))


class Batches:
    """The batches of one stage; `batches[step]` is on the device of the images.

    An epoch is one pass over the source, or the fewest passes with `epoch_steps` steps; the target has passes of its
    own. Without a source, an epoch is one pass over the target, or more. Raises MutualignError without either.
    """

    def __init__(
        self,
        source: LabelledImages | None,
        target: UnlabelledImages | None,
        channels: int,
        batch_size: int,
        seed: int,
        stage: int,
        epoch_steps: int = 0,
    ) -> None:
        leading = target if source is None else source.images  # an epoch is a pass over these
        if leading is None:
            raise MutualignError("a stage needs source images, target images, or both")
        self.source, self.target, self.channels = source, target, channels
        self.device = leading.pixels.device
        self.key = (seed, stage)
        self.source_order = None if source is None else EpochSampler(len(source), batch_size, *self.key, "source")
        self.target_order = None if target is None else EpochSampler(len(target), batch_size, *self.key, "target")
        self.steps_per_epoch = steps_per_epoch(len(leading), batch_size, epoch_steps)

    def rows(self, step: int) -> Rows:
        """Return the rows of the training sets that a step sees."""
        none = torch.empty(0, dtype=torch.int64)
        return Rows(
            *(none if order is None else order.indices(step) for order in (self.source_order, self.target_order))
        )

    def __getitem__(self, step: int) -> Batch:
        # Row numbers are copied without waiting for a GPU; a copy that blocks would wait for the step before it.
        source, target = (rows.to(self.device, non_blocking=True) for rows in self.rows(step))
        labels, parts = torch.empty(0, dtype=torch.int64, device=self.device), []
        if self.source is not None:
            parts.append(self._take(self.source.images, source, "source", step))
            labels = self.source.labels[source]
        if self.target is not None:
            parts.append(self._take(self.target, target, "target", step))
        images = to_floats(torch.cat(parts), self.channels)  # mapped ones are on another device than their file
        return Batch(images, labels, target.to(images.device, non_blocking=True))

    def _take(self, images: UnlabelledImages, rows: Tensor, domain: str, step: int) -> Tensor:
        pixels = images.take(rows, derive_seed(*self.key, "take", domain, step))
        return pixels.expand(*pixels.shape[:3], self.channels)
