"""BNM: the nuclear norm of the target predictions (Cui et al., CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.losses import batch_nuclear_norm


@dataclass(frozen=True)
class BNMConfig:
    """Settings of BNM."""

    weight: float = 1.0  # of the nuclear norm


@register_method("bnm", BNMConfig)
class BNM(Method):
    """Cross-entropy on the source, minus the nuclear norm of the matrix of target predictions.

    L = CE(source) - w ||P_t||_* / n. Source: Cui et al., "Towards discriminability and diversity: batch nuclear-norm
    maximization under label insufficient situations", CVPR 2020, eq. 10.
    """

    config: BNMConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        logits, n = self.logits(batch.images), batch.n_source
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "nuclear_norm": self.config.weight * batch_nuclear_norm(logits[n:]),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
