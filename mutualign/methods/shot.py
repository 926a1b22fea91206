"""SHOT: a source-free stage with a frozen head and pseudo-labels from centroids (Liang et al., ICML 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, ParameterGroup
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier, Outputs
from mutualign.nn.losses import information_maximisation


@dataclass(frozen=True)
class SHOTConfig:
    """Settings of SHOT."""

    pseudo_label_weight: float = 0.3  # of the cross-entropy on pseudo-labels; the authors take 0.1 for digits


@register_method("shot", SHOTConfig)
class SHOT(Method):
    """Information maximisation and pseudo-labels on the target alone; the classifier's head is frozen.

    L = E H(p_t) - H(E p_t) + b CE(p_t, centroid labels). A second stage after training on the source, which it does not
    see; the authors train that one with label smoothing. Source: Liang, Hu and Feng, "Do we really need to access the
    source data?", ICML 2020, eq. 3 to 7.
    """

    uses_source = False
    resizable_buffers = frozenset({"pseudo_labels"})

    config: SHOTConfig
    pseudo_labels: Tensor

    def __init__(self, classifier: Classifier, config: SHOTConfig) -> None:
        super().__init__(classifier, config)
        self.register_buffer("pseudo_labels", torch.empty(0, dtype=torch.int64))

    def parameter_groups(self) -> dict[str, list[ParameterGroup]]:
        return {"all": [ParameterGroup(list(self.classifier.features.parameters()))]}

    def begin_epoch(self, look: Callable[[], Outputs]) -> None:
        outputs = look()
        labels = centroid_labels(outputs.features, outputs.logits.softmax(1))
        self.pseudo_labels = labels.to(next(self.classifier.parameters()).device)

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        logits = self.logits(batch.images)
        labels = self.pseudo_labels[batch.target_rows]
        losses = {
            "information": information_maximisation(logits),
            "pseudo_labels": self.config.pseudo_label_weight * F.cross_entropy(logits, labels),
        }
        return losses, {}


def centroid_labels(
    features: Float[Tensor, "n features"], probabilities: Float[Tensor, "n classes"], rounds: int = 2
) -> Int64[Tensor, " n"]:
    """Label every row by the nearest class centroid in cosine distance.

    The first centroids weight rows by their probabilities, the next ones by the labels so far. Classes without a
    prediction get no centroid. Source: SHOT, eq. 4 to 6.
    """
    rows = F.normalize(torch.cat([features, torch.ones(len(features), 1)], dim=1), dim=1)
    present = torch.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]) > 0
    weights, labels = probabilities, probabilities.argmax(1)
    for _ in range(rounds):
        centroids = F.normalize(weights.T @ rows, dim=1)
        labels = (rows @ centroids.T).masked_fill(~present, -torch.inf).argmax(1)
        weights = F.one_hot(labels, probabilities.shape[1]).float()
    return labels
