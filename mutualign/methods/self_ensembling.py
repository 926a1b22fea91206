"""Self-ensembling: a student that agrees with its moving average (French et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.augment import AugmentConfig, strong_views
from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, PseudoLabeller, accuracy, mean_of
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.ema import EMATeacher


@dataclass(frozen=True)
class SelfEnsemblingConfig:
    """Settings of self-ensembling."""

    weight: float = 3.0  # of the consistency loss
    threshold: float = 0.968  # the teacher's top probability from which an image takes part
    balance_weight: float = 0.005  # of the class balance loss
    decay: float = 0.99  # of the teacher's moving average
    views: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(solarise=0.0, inversion=0.5, colour=0.5, texture=0.0, noise=0.0)
    )


@register_method("self_ensembling", SelfEnsemblingConfig)
class SelfEnsembling(Method):
    """Cross-entropy on the source, and the squared distance to a mean teacher on two views of each target image.

    L = CE(source) + w E[c sum_k (p_k - q_k)^2] + b balance, with p the student, q the teacher, c its confidence above
    the threshold, and the balance a binary cross-entropy of mean predictions with the uniform distribution. The stage
    produces the teacher. Source: French, Mackiewicz and Fisher, "Self-ensembling for visual domain adaptation", ICLR
    2018, sections 3.1 to 3.4.
    """

    needs_images = True

    config: SelfEnsemblingConfig

    def __init__(self, classifier: Classifier, config: SelfEnsemblingConfig) -> None:
        super().__init__(classifier, config)
        self.teacher = EMATeacher(classifier, config.decay)

    @property
    def output_model(self) -> Classifier:
        return self.teacher.model

    @property
    def pseudo_labeller(self) -> PseudoLabeller:
        return PseudoLabeller(self.teacher.model, self.config.threshold)

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        n = batch.n_source
        teacher = self.teacher(strong_views(batch.target, self.config.views)).float().softmax(1)
        logits = self.logits(strong_views(batch.images, self.config.views))
        student = logits[n:].float().softmax(1)
        confident = teacher.amax(1) >= self.config.threshold
        distances = (student - teacher).square().sum(1)
        balance = F.binary_cross_entropy(student.mean(0), torch.full_like(student[0], 1 / student.shape[1]))
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "consistency": self.config.weight * (distances * confident).mean(),
            "balance": self.config.balance_weight * confident.float().mean() * balance,
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels), "coverage": mean_of(confident)}

    def after_step(self) -> None:
        self.teacher.update(self.classifier)
