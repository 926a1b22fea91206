"""AdaMatch: self-training with a relative threshold and aligned class distributions (Berthelot et al., ICLR 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.augment import AugmentConfig, strong_views
from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy, mean_of
from mutualign.methods.registry import register_method
from mutualign.nn.layers import statistics_momentum


@dataclass(frozen=True)
class AdaMatchConfig:
    """Settings of AdaMatch."""

    threshold: float = 0.9  # times the mean top probability on source images: from there pseudo-labels count
    views: AugmentConfig = field(default_factory=AugmentConfig)  # strong augmentation


@register_method("adamatch", AdaMatchConfig)
class AdaMatch(Method):
    """Cross-entropy on weak and strong source views, and on strong target views with pseudo-labels from the weak ones.

    Source logits are random interpolations of those with and without target images in the batch. Target predictions are
    multiplied by the ratio of mean source to mean target predictions. The weight of the target loss is (1 - cos(min(pi,
    2 pi p))) / 2. Running statistics of batch norm are those with target images in the batch, as in the authors' code.
    That code also halves the source loss, averages the ratio over many batches, augments weak views and evaluates a
    moving average of the weights. Source: Berthelot et al., "AdaMatch: a unified approach to semi-supervised learning
    and domain adaptation", ICLR 2022, section 3.
    """

    needs_images = True

    config: AdaMatchConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        n, total = batch.n_source, len(batch.images)
        strong = strong_views(batch.images, self.config.views)
        together = self.logits(torch.cat([batch.images, strong]))
        with statistics_momentum(self.classifier, 0.0):
            alone = self.logits(torch.cat([batch.images[:n], strong[:n]]))
        source = torch.cat([together[:n], together[total : total + n]])
        mixed = alone + torch.rand_like(alone) * (source - alone)
        weak_source, strong_source = mixed.chunk(2)
        weak_target, strong_target = together[n:total].detach(), together[total + n :]

        ratio = weak_source.detach().softmax(1).mean(0) / weak_target.softmax(1).mean(0).clamp_min(1e-8)
        aligned = weak_target.softmax(1) * ratio
        confidence, labels = (aligned / aligned.sum(1, keepdim=True)).max(1)
        confident = confidence >= self.config.threshold * weak_source.detach().softmax(1).amax(1).mean()
        each = F.cross_entropy(strong_target, labels, reduction="none")
        ramp = (1 - torch.cos((2 * math.pi * progress).clamp(max=math.pi))) / 2
        losses = {
            "class": F.cross_entropy(weak_source, batch.labels) + F.cross_entropy(strong_source, batch.labels),
            "self_training": ramp * (each * confident).mean(),
        }
        return losses, {"class_accuracy": accuracy(weak_source, batch.labels), "coverage": mean_of(confident)}
