"""BSP: DANN with a penalty on the largest singular values of the features (Chen et al., ICML 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.io.typed import Count
from mutualign.methods.base import Losses, Metrics
from mutualign.methods.dann import DANN, DANNConfig
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.losses import batch_spectral_penalty


@dataclass(frozen=True)
class BSPConfig:
    """Settings of BSP on top of DANN."""

    domain: DANNConfig = field(default_factory=lambda: DANNConfig(reversal="ramp"))
    weight: float = 1e-4  # of the penalty
    largest: Count = 1  # singular values that are penalised


@register_method("bsp", BSPConfig)
class BSP(DANN):
    """DANN, and the squares of the largest singular values of the features of each domain.

    L = L_DANN + w (sum_i s_i(F_s)^2 + s_i(F_t)^2), so that no direction dominates the features. Source: Chen et al.,
    "Transferability vs. discriminability: batch spectral penalization", ICML 2019, eq. 7.
    """

    config: BSPConfig

    def __init__(self, classifier: Classifier, config: BSPConfig) -> None:
        super().__init__(classifier, config.domain)
        self.config = config

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        losses, metrics = self.losses_on(features, batch, progress)
        penalties = [batch_spectral_penalty(part, self.config.largest) for part in (features[:n], features[n:])]
        losses["spectral"] = self.config.weight * (penalties[0] + penalties[1])
        return losses, metrics
