"""FDA: source images with the low frequencies of target images (Yang and Soatto, CVPR 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.augment import fourier_swap
from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.losses import entropy


@dataclass(frozen=True)
class FDAConfig:
    """Settings of FDA."""

    beta: float = 0.05  # half the side of the swapped square of low frequencies, relative to the image
    entropy_weight: float = 0.005  # of the robust entropy of target predictions
    power: float = 2.0  # of the robust entropy: larger values look at uncertain images


@register_method("fda", FDAConfig)
class FDA(Method):
    """Cross-entropy on source images in the style of target images, and a robust entropy on the target.

    Each source image takes the low-frequency amplitudes of a random target image. L = CE(swapped source) + w E (H^2 +
    0.001^2)^power, with H the entropy over its maximum, ln(classes), as in the authors' code. Source: Yang and Soatto,
    "FDA: Fourier domain adaptation for semantic segmentation", CVPR 2020, eq. 4 to 6.
    """

    needs_images = True

    config: FDAConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        n, target = batch.n_source, batch.target
        rows = torch.randint(len(target), (n,), device=target.device)
        source = fourier_swap(batch.images[:n], target[rows], self.config.beta)
        logits = self.logits(torch.cat([source, target]))
        relative = entropy(logits[n:]) / math.log(self.classifier.classes)
        robust = (relative.square() + 1e-6) ** self.config.power
        losses = {
            "class": F.cross_entropy(logits[:n], batch.labels),
            "entropy": self.config.entropy_weight * robust.mean(),
        }
        return losses, {"class_accuracy": accuracy(logits[:n], batch.labels)}
