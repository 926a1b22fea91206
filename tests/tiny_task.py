"""The tiny task: three classes of 12x12 images, grey in the source, inverted and coloured in the target."""

from __future__ import annotations

from dataclasses import replace

import torch

from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages


def make_tiny_task(target_label_seed: int | None = None, enlarged: int = 1) -> Task:
    """The tiny task; with a seed, its sealed target labels are noise instead of the truth. Or with larger pixels."""
    generator = torch.Generator().manual_seed(0)

    def make(n: int) -> tuple[LabelledImages, TargetDataset]:
        labels = torch.randint(3, (n,), generator=generator)
        grey = torch.randint(60, (n, 12, 12, 1), generator=generator)
        for row, label in enumerate(labels.tolist()):
            grey[row, :, 4 * label : 4 * label + 4] += 150
        grey = grey.repeat_interleave(enlarged, 1).repeat_interleave(enlarged, 2)
        colour = (255 - grey.expand(-1, -1, -1, 3)).to(torch.uint8)
        sealed = labels
        if target_label_seed is not None:
            sealed = torch.randint(3, (n,), generator=torch.Generator().manual_seed(target_label_seed))
        return LabelledImages(UnlabelledImages(grey.to(torch.uint8)), labels), TargetDataset(
            UnlabelledImages(colour), sealed
        )

    (source_train, target_train), (source_test, target_test) = make(50), make(20)
    return Task(
        "tiny", "made in a test", ("left", "middle", "right"), source_train, source_test, target_train, target_test
    )


def every(step: int, task: Task) -> Task:
    """The task with every `step`-th image of each of its parts."""

    def thinned(part):
        rows = torch.arange(0, len(part), step)
        if isinstance(part, TargetDataset):
            return part.subset(rows)
        return LabelledImages(part.images.subset(rows), part.labels[rows])

    parts = ("source_train", "source_test", "target_train", "target_test")
    return replace(task, **{name: thinned(getattr(task, name)) for name in parts})
