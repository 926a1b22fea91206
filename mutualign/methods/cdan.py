"""CDAN and CDAN+E: adversarial alignment conditioned on the predictions (Long et al., NeurIPS 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.io.typed import Count
from mutualign.methods.base import Adversary, Losses, Method, Metrics, accuracy, mean_of
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.heads import DomainDiscriminator
from mutualign.nn.layers import reverse_gradient
from mutualign.nn.losses import entropy
from mutualign.nn.schedules import REVERSALS


@dataclass(frozen=True)
class CDANConfig:
    """Settings of CDAN."""

    weight: float = 1.0  # of the domain loss
    reversal: Literal["constant", "ramp"] = "ramp"  # strength of the gradient reversal over the stage
    entropy_weights: bool = True  # CDAN+E: images with certain predictions count more
    largest: Count = 4096  # features times classes; larger products are replaced by random projections of this size
    hidden: Count = 256  # units of the discriminator


@register_method("cdan", CDANConfig)
class CDAN(Method):
    """Cross-entropy on the source, and a domain discriminator on the products of features and predictions.

    L = CE(source) + w E[w_i BCE(D(f_i x p_i), domain_i)] behind gradient reversal, with w_i = 1 + exp(-H(p_i)) in
    CDAN+E, scaled to a mean of 1 (in the authors' code, in each domain). Source: Long et al., "Conditional adversarial
    domain adaptation", NeurIPS 2018, eq. 8 and 9.
    """

    config: CDANConfig
    feature_projection: Tensor
    class_projection: Tensor

    def __init__(self, classifier: Classifier, config: CDANConfig) -> None:
        super().__init__(classifier, config)
        self.strength = REVERSALS[config.reversal]
        sizes = classifier.feature_dim, classifier.classes
        self.projects = sizes[0] * sizes[1] > config.largest
        if self.projects:
            self.register_buffer("feature_projection", torch.randn(sizes[0], config.largest))
            self.register_buffer("class_projection", torch.randn(sizes[1], config.largest))
        width = config.largest if self.projects else sizes[0] * sizes[1]
        self.discriminator = DomainDiscriminator(width, config.hidden)

    @property
    def adversary(self) -> Adversary:
        return Adversary(self.discriminator, "domain")

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        logits = self.classifier.head(features)
        reversed_ = reverse_gradient(features, self.strength(progress))
        domain_logits = self.discriminator(self.conditioned(reversed_, logits.detach().softmax(1)))
        weights = None
        if self.config.entropy_weights:
            certain = 1 + torch.exp(-entropy(logits.detach()))
            weights = certain / certain.mean()
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "domain": self.config.weight
            * F.binary_cross_entropy_with_logits(domain_logits, batch.is_source, weight=weights),
        }
        return losses, {
            "class_accuracy": accuracy(logits[:n], batch.labels),
            "domain_accuracy": mean_of((domain_logits > 0) == (batch.is_source > 0)),
        }

    def conditioned(
        self, features: Float[Tensor, "n features"], probabilities: Float[Tensor, "n classes"]
    ) -> Float[Tensor, "n products"]:
        """Return all products of a feature and a probability, or random combinations of them if there are too many."""
        if not self.projects:
            return (probabilities[:, :, None] * features[:, None, :]).flatten(1)
        products = (features @ self.feature_projection) * (probabilities @ self.class_projection)
        return products / self.config.largest**0.5  # type: ignore[no-any-return]
