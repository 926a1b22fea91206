"""Heads: small networks from features to logits, projections and scores, without a final softmax or sigmoid.

What they return is float32 under autocast too, but for `Projection`, which feeds a critic: losses need more digits than
bf16 has.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.nn.layers import Dropout


class WideLinear(nn.Linear):
    """A linear layer whose outputs are at least float32, whatever the precision of its product."""

    def forward(self, values: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        outputs = super().forward(values)
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


class ManiHead(nn.Sequential):
    """features - 32 - ReLU - dropout 0.5 - classes: logits."""

    def __init__(self, feature_dim: int, classes: int, hidden: int = 32) -> None:
        super().__init__(nn.Linear(feature_dim, hidden), nn.ReLU(), Dropout(0.5), WideLinear(hidden, classes))


class MLPHead(nn.Sequential):
    """features - hidden - ReLU - outputs: logits."""

    def __init__(self, feature_dim: int, outputs: int, hidden: int = 256) -> None:
        super().__init__(nn.Linear(feature_dim, hidden), nn.ReLU(), WideLinear(hidden, outputs))


class DomainDiscriminator(nn.Module):
    """features - 32 - ReLU - 1: the logit that an image is from the source."""

    def __init__(self, feature_dim: int, hidden: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(feature_dim, hidden), nn.ReLU(), WideLinear(hidden, 1))

    def forward(self, features: Float[Tensor, "n features"]) -> Float[Tensor, " n"]:
        return self.layers(features).squeeze(1)  # type: ignore[no-any-return]


class Projection(nn.Sequential):
    """features - 64 - ReLU: the space in which mutual information is measured."""

    def __init__(self, feature_dim: int, size: int = 64) -> None:
        super().__init__(nn.Linear(feature_dim, size), nn.ReLU())


class CosineCritic(nn.Module):
    """T(a, b) = scale x cos(W a, W b) + bias, for each row of a with each row of b, by one matrix product.

    Scale and bias are learned; the scale is at most 100, as in CLIP (Radford et al., ICML 2021).
    """

    def __init__(self, feature_dim: int, size: int = 64) -> None:
        super().__init__()
        self.project = WideLinear(feature_dim, size)
        self.log_scale = nn.Parameter(torch.tensor(5.0).log())
        self.bias = nn.Parameter(torch.tensor(-2.0))  # most pairs are of different classes

    def forward(self, a: Float[Tensor, "a features"], b: Float[Tensor, "b features"]) -> Float[Tensor, "a b"]:
        a, b = F.normalize(self.project(a), dim=1), F.normalize(self.project(b), dim=1)
        with torch.autocast(a.device.type, enabled=False):
            return self.log_scale.clamp(max=math.log(100)).exp() * (a @ b.T) + self.bias


class ConcatenatingCritic(nn.Module):
    """T(a, b): the score of a pair, from its concatenation: 2 size - 512 - ReLU - 512 - ReLU - 1."""

    def __init__(self, size: int = 64, hidden: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), WideLinear(hidden, 1)
        )

    def forward(self, a: Float[Tensor, "pairs size"], b: Float[Tensor, "pairs size"]) -> Float[Tensor, " pairs"]:
        return self.layers(torch.cat([a, b], dim=1)).squeeze(1)  # type: ignore[no-any-return]
