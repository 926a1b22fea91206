"""DALN: the classifier is its own discriminator, by nuclear norms (Chen et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.layers import reverse_gradient
from mutualign.nn.losses import nuclear_wasserstein
from mutualign.nn.schedules import REVERSALS


@dataclass(frozen=True)
class DALNConfig:
    """Settings of DALN."""

    weight: float = 1.0  # of the discrepancy
    reversal: Literal["constant", "ramp"] = "ramp"  # strength of the gradient reversal over the stage


@register_method("daln", DALNConfig)
class DALN(Method):
    """Cross-entropy on the source, and the nuclear-norm Wasserstein discrepancy of the head behind gradient reversal.

    L = CE(source) + w (||P_t||_* / n_t - ||P_s||_* / n_s). The head separates the domains, the features bring them
    together. Source: Chen et al., "Reusing the task-specific classifier as a discriminator: discriminator-free
    adversarial domain adaptation", CVPR 2022, eq. 9 and 11.
    """

    config: DALNConfig

    def __init__(self, classifier: Classifier, config: DALNConfig) -> None:
        super().__init__(classifier, config)
        self.strength = REVERSALS[config.reversal]

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        logits = self.classifier.head(features[:n])
        critic = self.classifier.head(reverse_gradient(features, self.strength(progress)))
        losses = {
            "class": F.cross_entropy(logits, batch.labels),
            "discrepancy": self.config.weight * nuclear_wasserstein(critic[:n], critic[n:]),
        }
        return losses, {"class_accuracy": accuracy(logits, batch.labels)}
