"""MCD: two heads that disagree on the target, and features that make them agree (Saito et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.io.typed import Count
from mutualign.methods.base import Method, ParameterGroup, Update, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.losses import classifier_discrepancy


@dataclass(frozen=True)
class MCDConfig:
    """Settings of MCD."""

    weight: float = 1.0  # of the discrepancy
    feature_updates: Count = 4  # updates of the features in each step


@register_method("mcd", MCDConfig)
class MCD(Method):
    """Maximum classifier discrepancy: three alternating parts of each step.

    A: features and both heads minimise CE(source). B: the heads minimise CE(source) - w d, with d the mean absolute
    difference of their probabilities on the target. C: the features minimise w d, several times. The features have one
    optimiser for A and C, and the heads one for A and B, as in the authors' code: Adam then scales the small gradients
    of C by the size of those of A.
    Source: Saito et al., "Maximum classifier discrepancy for unsupervised domain adaptation", CVPR 2018, section 3.3.
    """

    config: MCDConfig

    def __init__(self, classifier: Classifier, config: MCDConfig) -> None:
        super().__init__(classifier, config)
        self.second_head = classifier.features.head(classifier.classes)

    def parameter_groups(self) -> dict[str, list[ParameterGroup]]:
        features = list(self.classifier.features.parameters())
        heads = [*self.classifier.head.parameters(), *self.second_head.parameters()]
        return {"features": [ParameterGroup(features)], "heads": [ParameterGroup(heads)]}

    def updates(self, batch: Batch, progress: Float[Tensor, ""]) -> Iterator[Update]:
        n = batch.n_source
        first, second = self.both(batch.images[:n])
        classes = F.cross_entropy(first, batch.labels) + F.cross_entropy(second, batch.labels)
        yield Update(("features", "heads"), {"class": classes}, {"class_accuracy": accuracy(first, batch.labels)})

        with torch.no_grad():
            features = self.features(batch.images)
        first, second = self.classifier.head(features), self.second_head(features)
        classes = F.cross_entropy(first[:n], batch.labels) + F.cross_entropy(second[:n], batch.labels)
        discrepancy = classifier_discrepancy(first[n:], second[n:])
        yield Update("heads", {"heads": classes - self.config.weight * discrepancy})

        for number in range(self.config.feature_updates):
            loss = self.config.weight * classifier_discrepancy(*self.both(batch.target))
            yield Update("features", {f"discrepancy_{number + 1}": loss})

    def both(self, images: Tensor) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n classes"]]:
        """Return the logits of both heads."""
        features = self.features(images)
        return self.classifier.head(features), self.second_head(features)
