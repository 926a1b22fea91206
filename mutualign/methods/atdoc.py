"""ATDOC: pseudo-labels from neighbours in a memory bank of the target (Liang et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.io.typed import Count
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier, Outputs


@dataclass(frozen=True)
class ATDOCConfig:
    """Settings of ATDOC with neighbourhood aggregation."""

    weight: float = 0.2  # of the loss on pseudo-labels at the end of the stage; it grows linearly from 0
    neighbours: Count = 5


@register_method("atdoc", ATDOCConfig)
class ATDOC(Method):
    """Cross-entropy on the source, and on target images labelled by their nearest neighbours in the target.

    L = CE(source) - w E[q log p(label)], with the label and its confidence q from the mean of the sharpened predictions
    of the nearest neighbours in cosine distance. The bank holds a feature and a prediction of every target image, in
    evaluation mode: all are computed at the start of each epoch, and those of a batch again after its step. In the
    authors' code, features start random and predictions uniform, and only those of a batch are written, after its step.
    Source: Liang, Hu and Feng, "Domain adaptation with auxiliary target domain-oriented classifier", CVPR 2021, eq. 7.
    """

    resizable_buffers = frozenset({"bank_features", "bank_predictions"})

    config: ATDOCConfig
    bank_features: Tensor
    bank_predictions: Tensor

    def __init__(self, classifier: Classifier, config: ATDOCConfig) -> None:
        super().__init__(classifier, config)
        self.register_buffer("bank_features", torch.empty(0, classifier.feature_dim))
        self.register_buffer("bank_predictions", torch.empty(0, classifier.classes))
        self._latest: tuple[Tensor, Tensor] | None = None  # rows and images of the last batch

    def begin_epoch(self, look: Callable[[], Outputs]) -> None:
        outputs, device = look(), next(self.classifier.parameters()).device
        self.bank_features, self.bank_predictions = (kept.to(device) for kept in _kept(*outputs[:2]))

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features, n = self.features(batch.images), batch.n_source
        logits = self.classifier.head(features)
        target, target_logits = F.normalize(features[n:].detach().float(), dim=1), logits[n:]
        with torch.autocast(target.device.type, enabled=False):  # in bf16, many neighbours are equally near
            similarities = target @ self.bank_features.T
        similarities = similarities.scatter(1, batch.target_rows[:, None], -torch.inf)  # not its own neighbour
        nearest = similarities.topk(max(min(self.config.neighbours, similarities.shape[1] - 1), 1), dim=1).indices
        confidence, labels = self.bank_predictions[nearest].mean(1).max(1)
        each = F.cross_entropy(target_logits, labels, reduction="none")
        weighted = (confidence * each).sum() / confidence.sum().clamp_min(1e-8)
        self._latest = batch.target_rows, batch.target
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "neighbours": self.config.weight * progress * weighted,
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}

    def after_step(self) -> None:
        if self._latest is not None:
            rows, images = self._latest
            self.classifier.eval()
            with torch.no_grad():
                features = self.classifier.features(images.float())  # autocast is off after a step
                logits = self.classifier.head(features)
            self.classifier.train(self.training)
            self.bank_features[rows], self.bank_predictions[rows] = _kept(logits, features)
            self._latest = None


def _kept(logits: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """What the bank holds of images."""
    return F.normalize(features, dim=1), sharpened(logits.softmax(1))


def sharpened(probabilities: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """Square the probabilities and divide each class by its total, so that frequent classes count less; then normalise.

    The total is the sum of the class's probabilities: over all target images at the start of an epoch, over the batch
    after a step. In the authors' code it is the sum of their squares, always over a batch, and nothing is normalised.
    Source: ATDOC, section 3.2.
    """
    squares = probabilities.square() / probabilities.sum(0).clamp_min(1e-8)
    return squares / squares.sum(1, keepdim=True)
