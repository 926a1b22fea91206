"""AdaBN: batch-norm statistics of the target, and nothing else (Li et al., 2018)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods.base import Method, ParameterGroup, Update
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier
from mutualign.nn.layers import batch_norms, statistics_momentum


@register_method("adabn")
class AdaBN(Method):
    """Replaces the running statistics of batch normalisation by those of the target; no weight changes.

    A second stage, after training on the source. Mean and variance are averages over all target batches of the stage.
    Source: Li et al., "Adaptive batch normalization for practical domain adaptation", Pattern Recognition 2018.
    """

    uses_source = False
    needs_batch_norm = True

    def __init__(self, classifier: Classifier, config: object = None) -> None:
        super().__init__(classifier)
        for layer in batch_norms(self):
            layer.reset_running_stats()

    def parameter_groups(self) -> dict[str, list[ParameterGroup]]:
        return {}

    def updates(self, batch: Batch, progress: Float[Tensor, ""]) -> Iterator[Update]:
        with torch.no_grad(), statistics_momentum(self, None):
            self.features(batch.images)
        yield from ()
