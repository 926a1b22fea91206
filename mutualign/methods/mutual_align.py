"""MutualAlign, the project's own method: mutual information over all pairs, and self-training across strong views."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.augment import AugmentConfig, add_target_texture, strong_views
from mutualign.data.types import Batch
from mutualign.io.typed import Share
from mutualign.methods.base import Losses, Metrics, PseudoLabeller, mean_of
from mutualign.methods.dann import DANN, DANNConfig
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.ema import EMATeacher
from mutualign.nn.heads import CosineCritic
from mutualign.nn.losses import all_pairs_mutual_information, information_maximisation


@dataclass(frozen=True)
class MutualAlignConfig:
    """Settings of MutualAlign; results/ablation.json has the effect of each."""

    domain: DANNConfig = field(default_factory=lambda: DANNConfig(weight=0.3, reversal="ramp"))
    mi_weight: float = 1.0  # of the mutual information of source and target images of a class
    information_weight: float = 0.0  # of the mutual information of target images and their predicted labels, at the end
    self_training_weight: float = 1.0  # of the cross-entropy on pseudo-labels
    threshold: float = 0.7  # lowest top probability of the teacher at which a target image is used
    decay: Share = 0.99  # of the teacher's moving average
    views: AugmentConfig = field(default_factory=AugmentConfig)  # of the student's images


@register_method("mutual_align", MutualAlignConfig)
class MutualAlign(DANN):
    """DANN, mutual information and self-training on strong views, with pseudo-labels from the plain target images.

    The teacher, a moving average of the student, labels the target images without augmentation. The student sees a
    strong view of every image, and learns the labels of which the teacher is confident. The bound on mutual information
    is over all pairs of a source and a confident target image. The mutual information of target images and labels can
    be added; its weight grows linearly over the stage. The output model is the teacher. Sources: MaNi (Sharma et al.,
    MICCAI 2022) for the bound; FixMatch (Sohn et al., NeurIPS 2020) for self-training.
    """

    needs_images = True

    config: MutualAlignConfig

    def __init__(self, classifier: Classifier, config: MutualAlignConfig) -> None:
        super().__init__(classifier, config.domain)
        self.config = config
        self.critic = CosineCritic(classifier.feature_dim)
        self.teacher = EMATeacher(classifier, config.decay)

    @property
    def output_model(self) -> Classifier:
        return self.teacher.model

    @property
    def pseudo_labeller(self) -> PseudoLabeller:
        return PseudoLabeller(self.teacher.model, self.config.threshold)

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        confidence, pseudo_labels = self.teacher(batch.target).softmax(1).max(1)
        confident = confidence >= self.config.threshold

        features, n = self.features(self.strong_views(batch)), batch.n_source
        losses, metrics = self.losses_on(features, batch, progress)
        if weight := self.config.mi_weight:
            losses["mi"] = weight * all_pairs_mutual_information(
                self.critic(features[:n], features[n:]),
                batch.labels[:, None] == pseudo_labels,
                confident.expand(n, -1),
            )
        logits = self.classifier.head(features[n:])
        if weight := self.config.information_weight:
            losses["information"] = weight * progress * information_maximisation(logits)
        each = F.cross_entropy(logits, pseudo_labels, reduction="none")
        losses["self_training"] = self.config.self_training_weight * (each * confident).mean()
        metrics["coverage"] = mean_of(confident)
        return losses, metrics

    def strong_views(self, batch: Batch) -> Float[Tensor, "n channels height width"]:
        """Return the student's images: strong views of all images, of the source after texture is added."""
        source = add_target_texture(batch.images[: batch.n_source], batch.target, self.config.views)
        return strong_views(torch.cat([source, batch.target]), self.config.views)

    def after_step(self) -> None:
        self.teacher.update(self.classifier)
