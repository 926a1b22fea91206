"""Entropy minimisation: confident predictions on the target (Grandvalet and Bengio, 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.losses import entropy_minimisation


@dataclass(frozen=True)
class EntropyMinimisationConfig:
    """Settings of EntropyMinimisation."""

    weight: float = 0.1  # of the entropy


@register_method("entropy", EntropyMinimisationConfig)
class EntropyMinimisation(Method):
    """Cross-entropy on the source, and the entropy of the predictions on the target.

    L = CE(source) + w E H(p_t). Source: Grandvalet and Bengio, "Semi-supervised learning by entropy minimization",
    NeurIPS 2004, eq. 6.
    """

    config: EntropyMinimisationConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        logits, n = self.logits(batch.images), batch.n_source
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "entropy": self.config.weight * entropy_minimisation(logits[n:]),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
