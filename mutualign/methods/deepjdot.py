"""DeepJDOT: optimal transport of features and labels (Damodaran et al., ECCV 2018). Needs the extra `transport`."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.losses import transport_cost


@dataclass(frozen=True)
class DeepJDOTConfig:
    """Settings of DeepJDOT."""

    weight: float = 1.0  # of the transport cost
    feature_weight: float = 0.001  # of the distances of features in the cost
    label_weight: float = 0.0001  # of the cross-entropies in the cost


@register_method("deepjdot", DeepJDOTConfig)
class DeepJDOT(Method):
    """Cross-entropy on the source, and the cost of the optimal transport of source features and labels to the target.

    L = CE(source) + <plan, a |f_s - f_t|^2 + l CE(y_s, p_t)>, with the exact plan of each pair of batches. Source:
    Damodaran et al., "DeepJDOT: deep joint distribution optimal transport", ECCV 2018, eq. 7.
    """

    graph_break = "POT computes the transport plan outside torch"

    config: DeepJDOTConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        logits = self.classifier.head(features)
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "transport": self.config.weight
            * transport_cost(
                features[:n],
                batch.labels,
                features[n:],
                logits[n:],
                self.config.feature_weight,
                self.config.label_weight,
            ),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
