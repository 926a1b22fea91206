"""Information maximisation: confident and diverse predictions on the target (Shi and Sha, 2012)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.class_prior import PRIORS, EstimatedPrior
from mutualign.nn.classifier import Classifier, Outputs
from mutualign.nn.losses import information_maximisation


@dataclass(frozen=True)
class InformationMaximisationConfig:
    """Settings of InformationMaximisation."""

    weight: float = 1.0  # of the mutual information
    prior: Literal["uniform", "estimated"] = "uniform"  # how frequent the target's classes are taken to be


@register_method("information_maximisation", InformationMaximisationConfig)
class InformationMaximisation(Method):
    """Cross-entropy on the source, minus the mutual information between target images and their predicted labels.

    L = CE(source) - w (H(E p_t) - E H(p_t)). With prior = "estimated", H(E p_t) becomes -KL(E p_t || q), and q the
    target's class frequencies, which are estimated before each epoch (`plausible_shares`). Source: Shi and Sha,
    "Information-theoretical learning of discriminative clusters for unsupervised domain adaptation", ICML 2012.
    """

    config: InformationMaximisationConfig

    def __init__(self, classifier: Classifier, config: InformationMaximisationConfig) -> None:
        super().__init__(classifier, config)
        self.prior = PRIORS[config.prior](classifier.classes)

    def begin_epoch(self, look: Callable[[], Outputs]) -> None:
        if isinstance(self.prior, EstimatedPrior):
            self.prior.update(look().logits.softmax(1))

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        logits, n = self.logits(batch.images), batch.n_source
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "information": self.config.weight * information_maximisation(logits[n:], self.prior.shares),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
