"""An upper bound for `mnist-mnistm`: the same target, and as source the target's training images with their labels.

A plugin. Whatever a recipe reaches on `mnistm-mnistm`, its network, views and steps allow; the difference to
`mnist-mnistm` is what the labels of the target are worth. README.md has the command.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mutualign.data.datasets.mnist_mnistm import load_frozen, load_reverse
from mutualign.data.datasets.published import FROZEN_FILES
from mutualign.data.datasets.registry import register_task
from mutualign.data.task import Task


@register_task("mnistm-mnistm", "MNIST-M (frozen) with labels -> MNIST-M: no adaptation, an upper bound", FROZEN_FILES)
def train_on_target(folder: Path) -> Task:
    """The target of mnist-mnistm, with its labelled training images as source."""
    labelled = load_reverse(folder)
    return replace(
        load_frozen(folder),
        name="mnistm-mnistm",
        identity=f"source and target: the target of mnist-mnistm. {labelled.identity}",
        source_train=labelled.source_train,
        source_test=labelled.source_test,
    )
