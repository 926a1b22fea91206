"""Source only: the baseline without adaptation."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Losses, Method, Metrics, accuracy
from mutualign.methods.registry import register_method


@register_method("source_only")
class SourceOnly(Method):
    """Cross-entropy on source labels; target images are not used."""

    uses_target = False

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        logits = self.logits(batch.images)
        return {"class": F.cross_entropy(logits, batch.labels)}, {"class_accuracy": accuracy(logits, batch.labels)}
