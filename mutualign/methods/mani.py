"""MaNi: mutual information between features of same-class source and target images (Sharma et al., MICCAI 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.io.typed import Share
from mutualign.methods.base import Losses, Metrics, PseudoLabeller, mean_of
from mutualign.methods.dann import DANN, DANNConfig
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.ema import EMATeacher
from mutualign.nn.heads import ConcatenatingCritic, Projection
from mutualign.nn.losses import jsd_mutual_information, sample_pairs


@dataclass(frozen=True)
class MaNiConfig:
    """Settings of MaNi on top of DANN; the defaults are the published experiment's."""

    domain: DANNConfig = field(default_factory=DANNConfig)
    weight: float = 1.0  # of the mutual-information loss
    threshold: float = 0.9  # lowest top probability of the teacher at which a target image is used
    decay: Share = 0.99  # of the teacher's moving average


@register_method("mani", MaNiConfig)
class MaNi(DANN):
    """DANN plus a Jensen-Shannon bound over pairs of a source image and a confidently pseudo-labelled target image.

    L = L_DANN + w (JSD(target anchors) + JSD(source anchors)): pairs of one class against pairs of different classes.
    Pseudo-labels are those of a moving average of the classifier, where it is confident. Both directions, the average
    and the threshold are those of the experiment on digits; the authors' code for nuclei has none of them. Source:
    Sharma et al., "MaNi: maximizing mutual information for nuclei cross-domain unsupervised segmentation", MICCAI 2022,
    eq. 3.
    """

    config: MaNiConfig

    def __init__(self, classifier: Classifier, config: MaNiConfig) -> None:
        super().__init__(classifier, config.domain)
        self.config = config
        self.projection = Projection(classifier.feature_dim)
        self.critic = ConcatenatingCritic()
        self.teacher = EMATeacher(classifier, config.decay)

    @property
    def pseudo_labeller(self) -> PseudoLabeller:
        return PseudoLabeller(self.teacher.model, self.config.threshold)

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        features = self.features(batch.images)
        losses, metrics = self.losses_on(features, batch, progress)

        confidence, pseudo_labels = self.teacher(batch.target).softmax(1).max(1)
        confident = confidence >= self.config.threshold
        pairs = sample_pairs(batch.labels, pseudo_labels, confident, self.classifier.classes)

        projected = self.projection(features)
        source, target = projected[: batch.n_source], projected[batch.n_source :]
        anchors_s, anchors_t = source[pairs.source], target[pairs.target]
        scores = self.critic(  # one call: joint pairs, then marginal pairs, of both directions
            torch.cat([anchors_t, anchors_s, anchors_t, anchors_s]),
            torch.cat([anchors_s, anchors_t, source[pairs.other_source], target[pairs.other_target]]),
        )
        joint_t, joint_s, marginal_t, marginal_s = scores.chunk(4)
        losses["mi"] = self.config.weight * (
            jsd_mutual_information(joint_t, marginal_t, pairs.valid)
            + jsd_mutual_information(joint_s, marginal_s, pairs.valid)
        )
        metrics["coverage"] = mean_of(confident)
        metrics["pairs"] = pairs.valid.sum().float()
        return losses, metrics

    def after_step(self) -> None:
        self.teacher.update(self.classifier)
