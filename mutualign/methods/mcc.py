"""MCC: little confusion between classes on the target (Jin et al., ECCV 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.io.typed import Positive
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.losses import class_confusion


@dataclass(frozen=True)
class MCCConfig:
    """Settings of MCC."""

    weight: float = 1.0  # of the confusion
    temperature: Positive = 2.5  # of the softmax in the confusion


@register_method("mcc", MCCConfig)
class MCC(Method):
    """Cross-entropy on the source, and the class confusion of the target predictions.

    L = CE(source) + w MCC(P_t). Source: Jin et al., "Minimum class confusion for versatile domain adaptation", ECCV
    2020, eq. 7.
    """

    config: MCCConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        logits, n = self.logits(batch.images), batch.n_source
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "confusion": self.config.weight * class_confusion(logits[n:], self.config.temperature),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
