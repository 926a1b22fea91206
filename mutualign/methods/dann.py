"""DANN: features that a domain discriminator cannot separate (Ganin et al., JMLR 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Adversary, Losses, Method, Metrics, accuracy, mean_of
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.heads import DomainDiscriminator
from mutualign.nn.layers import reverse_gradient
from mutualign.nn.schedules import REVERSALS


@dataclass(frozen=True)
class DANNConfig:
    """Settings of DANN; the defaults are the published experiment's."""

    weight: float = 1.0  # of the domain loss, a mean over both domains; the paper adds up a mean of each
    reversal: Literal["constant", "ramp"] = "constant"  # strength of the gradient reversal over the stage


@register_method("dann", DANNConfig)
class DANN(Method):
    """Cross-entropy on source labels, and cross-entropy on domains behind gradient reversal.

    L = CE(source) + w BCE(D(f), domain), where the features get the gradient of the second term with its sign reversed.
    Source: Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016, eq. 9 and 10.
    """

    def __init__(self, classifier: Classifier, config: DANNConfig) -> None:
        super().__init__(classifier, config)
        self.discriminator = DomainDiscriminator(classifier.feature_dim)
        self.weight, self.strength = config.weight, REVERSALS[config.reversal]

    @property
    def adversary(self) -> Adversary:
        return Adversary(self.discriminator, "domain")

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        return self.losses_on(self.features(batch.images), batch, progress)

    def losses_on(
        self, features: Float[Tensor, "n features"], batch: Batch, progress: Float[Tensor, ""]
    ) -> tuple[Losses, Metrics]:
        """Compute DANN's losses from the features of a batch, source rows first."""
        logits = self.classifier.head(features[: batch.n_source])
        domain_logits = self.discriminator(reverse_gradient(features, self.strength(progress)))
        losses = {
            "class": F.cross_entropy(logits, batch.labels),
            "domain": self.weight * F.binary_cross_entropy_with_logits(domain_logits, batch.is_source),
        }
        return losses, {
            "class_accuracy": accuracy(logits, batch.labels),
            "domain_accuracy": mean_of((domain_logits > 0) == (batch.is_source > 0)),
        }
