"""AdaBN: batch-norm statistics of the target, and nothing else (Li et al., 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.data.types import Batch
from mutualign.methods.base import Method, ParameterGroup, Update
from mutualign.methods.registry import register_method
from mutualign.nn.classifier import Classifier


@register_method("adabn")
class AdaBN(Method):
    """Replaces the running statistics of batch normalisation by those of the target; no weight changes.

    A second stage, after training on the source. Mean and variance are averages over all target batches of the stage.
    Source: Li et al., "Adaptive batch normalization for practical domain adaptation", Pattern Recognition 2018.
    """

    uses_source = False

    def __init__(self, classifier: Classifier, config: object = None) -> None:
        super().__init__(classifier)
        for layer in _norms(self):
            layer.reset_running_stats()

    def parameter_groups(self) -> dict[str, list[ParameterGroup]]:
        return {}

    def updates(self, batch: Batch, progress: Float[Tensor, ""]) -> Iterator[Update]:
        with torch.no_grad(), _plain_averages(self):
            self.features(batch.images)
        yield from ()


def _norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def _plain_averages(module: nn.Module) -> Iterator[None]:
    """Context in which running statistics are plain averages over batches, which later stages should not inherit."""
    layers = _norms(module)
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = None
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum
