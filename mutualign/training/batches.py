"""Batches: which images a step sees, as a function of (seed, stage, step)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from mutualign.data.images import Batch, LabelledImages, UnlabelledImages, to_floats
from mutualign.randomness import derive_seed, generator


class Rows(NamedTuple):
    """Which images of the training sets a batch holds."""

    source: Int64[Tensor, " source"]
    target: Int64[Tensor, " target"]


class Order:
    """Passes over `length` images, each in a new random order, cut into batches; the last of a pass may be smaller."""

    def __init__(self, length: int, batch_size: int, *key: int | str) -> None:
        self.length, self.batch_size, self.key = length, batch_size, key
        self.steps_per_pass = -(-length // batch_size)
        self._pass, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> Int64[Tensor, " batch"]:
        """The images of a step; any step may be asked for at any time."""
        number, within = divmod(step, self.steps_per_pass)
        if number != self._pass:
            self._pass, self._permutation = number, torch.randperm(self.length, generator=generator(*self.key, number))
        return self._permutation[within * self.batch_size : (within + 1) * self.batch_size]


def steps_per_epoch(images: int, batch_size: int, epoch_steps: int) -> int:
    """Steps of one pass over the images, or of as many whole passes as it takes for `epoch_steps` steps."""
    steps_per_pass = -(-images // batch_size)
    return steps_per_pass * max(1, -(-epoch_steps // steps_per_pass))


class Batches:
    """The batches of one stage. An epoch is one pass over the source, or the fewest that take `epoch_steps` steps.

    The target goes through passes of its own.

    Batches are where the images are: on one device, that of `source` and `target`.
    """

    def __init__(
        self,
        source: LabelledImages,
        target: UnlabelledImages | None,
        channels: int,
        batch_size: int,
        seed: int,
        stage: int,
        epoch_steps: int = 0,
    ) -> None:
        self.source, self.target, self.channels = source, target, channels
        self.key = (seed, stage)
        self.source_order = Order(len(source), batch_size, *self.key, "source")
        self.target_order = None if target is None else Order(len(target), batch_size, *self.key, "target")
        self.steps_per_epoch = steps_per_epoch(len(source), batch_size, epoch_steps)

    def rows(self, step: int) -> Rows:
        """Which images a step sees."""
        target = torch.empty(0, dtype=torch.int64) if self.target_order is None else self.target_order.indices(step)
        return Rows(self.source_order.indices(step), target)

    def __getitem__(self, step: int) -> Batch:
        rows = self.rows(step)
        parts = [self._take(self.source.images, rows.source, "source", step)]
        if self.target is not None:
            parts.append(self._take(self.target, rows.target, "target", step))
        labels = self.source.labels[rows.source.to(self.source.labels.device)]
        return Batch(to_floats(torch.cat(parts), self.channels), labels)

    def _take(self, images: UnlabelledImages, rows: Tensor, domain: str, step: int) -> Tensor:
        pixels = images.take(rows, derive_seed(*self.key, "take", domain, step))
        return pixels.expand(*pixels.shape[:3], self.channels)
