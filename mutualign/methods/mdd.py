"""MDD: an adversarial classifier that disagrees on the target only (Zhang et al., ICML 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.io.typed import Count
from mutualign.methods.base import Adversary, Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.heads import MLPHead
from mutualign.nn.layers import reverse_gradient
from mutualign.nn.losses import margin_disparity
from mutualign.nn.schedules import ramp


@dataclass(frozen=True)
class MDDConfig:
    """Settings of MDD."""

    weight: float = 1.0  # of the disparity
    margin: float = 4.0  # factor of the agreement on the source; the authors take 2 for Office-Home
    reversal: float = 0.1  # highest strength of the gradient reversal
    hidden: Count = 256  # units of the adversarial classifier


@register_method("mdd", MDDConfig)
class MDD(Method):
    """Cross-entropy on the source, and the margin disparity of a second classifier behind gradient reversal.

    L = CE(source) + w (m E[-log p'_s(h_s)] + E[-log(1 - p'_t(h_t))]), with h the predicted classes and p' the second
    classifier, a larger one here; in the authors' code both are alike. Source: Zhang et al., "Bridging theory and
    algorithm for domain adaptation", ICML 2019, eq. 30.
    """

    config: MDDConfig

    def __init__(self, classifier: Classifier, config: MDDConfig) -> None:
        super().__init__(classifier, config)
        self.opponent = MLPHead(classifier.feature_dim, classifier.classes, config.hidden)

    @property
    def adversary(self) -> Adversary:
        return Adversary(self.opponent, "disparity")

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        logits = self.classifier.head(features)
        opponent = self.opponent(reverse_gradient(features, self.config.reversal * ramp(progress)))
        main = logits.detach()
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "disparity": self.config.weight
            * margin_disparity(main[:n], opponent[:n], main[n:], opponent[n:], self.config.margin),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
