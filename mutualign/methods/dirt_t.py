"""DIRT-T: refine a classifier on the target alone, in small steps (Shu et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.io.typed import Share
from mutualign.methods.base import Losses, Method, Metrics
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.ema import EMATeacher
from mutualign.nn.layers import statistics_momentum
from mutualign.nn.losses import divergence, entropy_minimisation, virtual_adversarial_loss


@dataclass(frozen=True)
class DIRTTConfig:
    """Settings of DIRT-T."""

    weight: float = 0.01  # of entropy and virtual adversarial loss
    teacher_weight: float = 0.01  # of the divergence from the teacher
    decay: Share = 0.998  # of the teacher's moving average
    radius: float = 1.75  # of the virtual adversarial ball: the authors' 3.5, for images in [-1, 1], halved


@register_method("dirt_t", DIRTTConfig)
class DIRTT(Method):
    """Entropy minimisation and virtual adversarial training on the target, close to a slowly moving teacher.

    L = w (E H(p_t) + VAT(target)) + b KL(teacher || p_t). A second stage after VADA; it does not see the source, and
    produces the teacher. Adversarial images do not enter the running statistics of batch norm. The teacher moves in
    every step; that of the authors' code is renewed every 5,000 steps.
    Source: Shu et al., "A DIRT-T approach to unsupervised domain adaptation", ICLR 2018, eq. 10.
    """

    uses_source = False
    graph_break = "the virtual adversarial direction is a gradient within forward"

    config: DIRTTConfig

    def __init__(self, classifier: Classifier, config: DIRTTConfig) -> None:
        super().__init__(classifier, config)
        self.teacher = EMATeacher(classifier, config.decay)

    @property
    def output_model(self) -> Classifier:
        return self.teacher.model

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        logits = self.logits(batch.images)
        with statistics_momentum(self.classifier, 0.0):
            vat = virtual_adversarial_loss(self.logits, batch.images, self.config.radius)
        losses = {
            "entropy": self.config.weight * entropy_minimisation(logits),
            "target_vat": self.config.weight * vat,
            "teacher": self.config.teacher_weight * divergence(self.teacher(batch.images), logits),
        }
        return losses, {}

    def after_step(self) -> None:
        self.teacher.update(self.classifier)
