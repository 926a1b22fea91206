"""VADA: DANN whose decision boundary avoids dense regions of the target (Shu et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Metrics
from mutualign.methods.dann import DANN, DANNConfig
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.layers import statistics_momentum
from mutualign.nn.losses import entropy_minimisation, virtual_adversarial_loss


@dataclass(frozen=True)
class VADAConfig:
    """Settings of VADA."""

    domain: DANNConfig = field(default_factory=lambda: DANNConfig(weight=0.01))
    target_weight: float = 0.01  # of entropy and virtual adversarial loss on the target
    source_weight: float = 1.0  # of the virtual adversarial loss on the source
    radius: float = 1.75  # of the virtual adversarial ball: the authors' 3.5, for images in [-1, 1], halved


@register_method("vada", VADAConfig)
class VADA(DANN):
    """DANN, with entropy minimisation on the target and virtual adversarial training on both domains.

    L = L_DANN + w_t (E H(p_t) + VAT(target)) + w_s VAT(source). Adversarial images do not enter the running statistics
    of batch norm, as in the authors' code. That code alternates discriminator and classifier instead of reversing
    gradients, and evaluates a moving average of the weights.
    Source: Shu et al., "A DIRT-T approach to unsupervised domain adaptation", ICLR 2018, eq. 8.
    """

    graph_break = "the virtual adversarial direction is a gradient within forward"

    config: VADAConfig

    def __init__(self, classifier: Classifier, config: VADAConfig) -> None:
        super().__init__(classifier, config.domain)
        self.config = config

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        losses, metrics = self.losses_on(features, batch, progress)
        logits = self.classifier.head(features)
        source, target = batch.images[:n], batch.target
        target_weight, source_weight = self.config.target_weight, self.config.source_weight
        losses["entropy"] = target_weight * entropy_minimisation(logits[n:])
        with statistics_momentum(self.classifier, 0.0):
            losses["target_vat"] = target_weight * virtual_adversarial_loss(self.logits, target, self.config.radius)
            losses["source_vat"] = source_weight * virtual_adversarial_loss(self.logits, source, self.config.radius)
        return losses, metrics
