"""DAN: features with equal kernel mean embeddings in both domains (Long et al., ICML 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.losses import mmd


@dataclass(frozen=True)
class MMDConfig:
    """Settings of MMD."""

    weight: float = 1.0  # of the discrepancy


@register_method("mmd", MMDConfig)
class MMD(Method):
    """Cross-entropy on the source, and the multi-kernel maximum mean discrepancy between the features of both domains.

    L = CE(source) + w MMD^2(f_s, f_t). Source: Long et al., "Learning transferable features with deep adaptation
    networks" (DAN), ICML 2015, eq. 4.
    """

    config: MMDConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        logits = self.classifier.head(features)
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "mmd": self.config.weight * mmd(features[:n], features[n:]),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
