"""AFN: features whose norms grow step by step in both domains (Xu et al., ICCV 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.losses import stepwise_feature_norm


@dataclass(frozen=True)
class AFNConfig:
    """Settings of AFN."""

    weight: float = 0.05  # of the norms
    step: float = 1.0  # by which norms should grow in an update


@register_method("afn", AFNConfig)
class AFN(Method):
    """Cross-entropy on the source, and a step in the norms of the features of both domains.

    L = CE(source) + w E (|f| - (|f|_before + step))^2, the mean taken in each domain. Source: Xu et al., "Larger norm
    more transferable", ICCV 2019, eq. 8.
    """

    config: AFNConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        logits = self.classifier.head(features)
        norms = [stepwise_feature_norm(part, self.config.step) for part in (features[:n], features[n:])]
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "norm": self.config.weight * (norms[0] + norms[1]),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
