"""Deep CORAL: equal covariances of the features (Sun and Saenko, 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.losses import coral


@dataclass(frozen=True)
class CORALConfig:
    """Settings of CORAL."""

    weight: float = 1.0  # of the distance


@register_method("coral", CORALConfig)
class CORAL(Method):
    """Cross-entropy on the source, and the distance of the covariances of the features.

    L = CE(source) + w |C_s - C_t|^2 / (4 d^2). The paper compares logits instead, and chooses w so that both losses end
    at about the same value; with w = 1 this one is very small. Source: Sun and Saenko, "Deep CORAL", ECCV 2016
    workshops, eq. 1 and 6.
    """

    config: CORALConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        logits = self.classifier.head(features)
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "coral": self.config.weight * coral(features[:n], features[n:]),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
