"""Rotation: features that also tell by how much an image is turned (Sun et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.io.typed import Count
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.heads import MLPHead


@dataclass(frozen=True)
class RotationConfig:
    """Settings of the rotation task."""

    weight: float = 1.0  # of the loss on rotated images
    hidden: Count = 64  # units of the rotation head


@register_method("rotation", RotationConfig)
class Rotation(Method):
    """Cross-entropy on the source, and on the rotation of source and target images by 0, 90, 180 or 270 degrees.

    L = CE(source) + w CE(rotation). The auxiliary task brings the domains together; it is a poor choice where a turned
    image belongs to another class, such as 6 and 9: on digits the authors flip instead. Images that are not square are
    turned by 0 or 180 degrees. Source: Sun et al., "Unsupervised domain adaptation through self-supervision", 2019.
    """

    needs_images = True

    config: RotationConfig

    def __init__(self, classifier: Classifier, config: RotationConfig) -> None:
        super().__init__(classifier, config)
        self.rotation_head = MLPHead(classifier.feature_dim, 4, config.hidden)

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        images, n = batch.images, batch.n_source
        step = 1 if images.shape[2] == images.shape[3] else 2  # others keep their shape in half turns only
        choices = torch.stack([images.rot90(quarter, dims=(2, 3)) for quarter in range(0, 4, step)])
        chosen = torch.randint(len(choices), (len(images),), device=images.device)
        turns, turned = chosen * step, choices[chosen, torch.arange(len(images), device=images.device)]
        features = self.features(torch.cat([images[:n], turned]))
        logits, rotations = self.classifier.head(features[:n]), self.rotation_head(features[n:])
        losses = {
            "class": F.cross_entropy(logits, batch.labels),
            "rotation": self.config.weight * F.cross_entropy(rotations, turns),
        }
        return losses, {
            "class_accuracy": accuracy(logits, batch.labels),
            "rotation_accuracy": accuracy(rotations, turns),
        }
