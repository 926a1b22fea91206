"""An upper bound for `mnist-mnistm`: the same target, and as source the target's training images with their labels.

A plugin. Whatever a recipe reaches on `mnistm-mnistm`, its network, views and steps allow; the difference to
`mnist-mnistm` is what the labels of the target are worth. README.md has the command.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mutualign.data.datasets.mnist_mnistm import load_reverse
from mutualign.data.datasets.published import FROZEN_FILES
from mutualign.data.datasets.registry import register_task
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset


@register_task("mnistm-mnistm", "MNIST-M (frozen) with labels -> MNIST-M: no adaptation, an upper bound", FROZEN_FILES)
def train_on_target(folder: Path) -> Task:
    """The source of mnistm-mnist, as both domains."""
    task = load_reverse(folder)
    return replace(
        task,
        name="mnistm-mnistm",
        identity=f"source and target: the target of mnist-mnistm. {task.identity}",
        target_train=unlabelled(task.source_train),
        target_test=unlabelled(task.source_test),
    )


def unlabelled(images: LabelledImages) -> TargetDataset:
    """Hide the labels."""
    return TargetDataset(images.images, images.labels)
