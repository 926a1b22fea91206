"""Self-ensembling: a student that agrees with its moving average (French et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.augment import AugmentConfig, strong_views
from mutualign.data.types import Batch
from mutualign.io.typed import Share
from mutualign.methods.base import Losses, Method, Metrics, PseudoLabeller, accuracy, mean_of
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.ema import EMATeacher


@dataclass(frozen=True)
class SelfEnsemblingConfig:
    """Settings of self-ensembling."""

    weight: float = 3.0  # of consistency and class balance together
    threshold: float = 0.968  # the teacher's top probability from which an image takes part
    balance_weight: float = 0.005  # of the class balance, within that
    decay: Share = 0.99  # of the teacher's moving average
    views: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(solarise=0.0, inversion=0.5, colour=0.5, texture=0.0, noise=0.0)
    )


@register_method("self_ensembling", SelfEnsemblingConfig)
class SelfEnsembling(Method):
    """Cross-entropy on the source, and the squared distance to a mean teacher on two views of each target image.

    L = CE(source) + w (E[c mean_k (p_k - q_k)^2] + b E[c] sum_k BCE(E p_k, 1 / classes)), with p the student, q the
    teacher, and c whether its confidence reaches the threshold. The mean, the sum and the weights are those of the
    authors' code, which passes source and target through the network one after the other; here they share the
    statistics of batch norm. The stage produces the teacher. Source: French, Mackiewicz and Fisher, "Self-ensembling
    for visual domain adaptation", ICLR 2018, sections 3.1 to 3.4.
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
        teacher = self.teacher(strong_views(batch.target, self.config.views)).softmax(1)
        logits = self.logits(strong_views(batch.images, self.config.views))
        student = logits[n:].softmax(1)
        confident = teacher.amax(1) >= self.config.threshold
        distances, coverage = (student - teacher).square().mean(1), mean_of(confident)
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "consistency": self.config.weight * (distances * confident).mean(),
            "balance": self.config.weight * self.config.balance_weight * coverage * imbalance(student),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels), "coverage": coverage}

    def after_step(self) -> None:
        self.teacher.update(self.classifier)


def imbalance(probabilities: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """Sum over classes of the binary cross-entropy of the mean prediction with 1 / classes; finite for certain ones.

    torch refuses its own `binary_cross_entropy` under autocast on a GPU.
    """
    mean, share = probabilities.mean(0), 1 / probabilities.shape[1]
    return -(share * (mean + 1e-6).log() + (1 - share) * (1 - mean + 1e-6).log()).sum()
