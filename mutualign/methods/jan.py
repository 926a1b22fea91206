"""JAN: equal joint distributions of features and predictions (Long et al., ICML 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.losses import joint_mmd


@dataclass(frozen=True)
class JANConfig:
    """Settings of JAN."""

    weight: float = 1.0  # of the discrepancy


@register_method("jan", JANConfig)
class JAN(Method):
    """Cross-entropy on the source, and the joint maximum mean discrepancy of features and predictions.

    L = CE(source) + w JMMD^2((f_s, p_s), (f_t, p_t)). Source: Long et al., "Deep transfer learning with joint
    adaptation networks", ICML 2017, eq. 5.
    """

    config: JANConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        logits = self.classifier.head(features)
        probabilities = logits.softmax(1)
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "joint_mmd": self.config.weight
            * joint_mmd((features[:n], probabilities[:n]), (features[n:], probabilities[n:])),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
