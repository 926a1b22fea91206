"""Source only: the class cross-entropy on labelled source images, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.algorithms.base import Algorithm, Losses, Metrics, accuracy
from mutualign.data.images import Batch
from mutualign.nn.backbones import Classifier


@dataclass(frozen=True)
class SourceOnlyConfig:
    """Source-only training has no settings of its own."""


class SourceOnly(Algorithm):
    """The baseline that adapts nothing."""

    uses_target = False

    def __init__(self, classifier: Classifier, config: SourceOnlyConfig) -> None:
        super().__init__(classifier)

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        logits = self.classifier.head(self.features(batch.images))
        return {"class": F.cross_entropy(logits, batch.labels)}, {"class_accuracy": accuracy(logits, batch.labels)}
