"""Layers that the networks share: gradient reversal, a dropout that is cheap on CPU, batch norm over processes."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.nn.distributed import current_share, sum_over_processes
from mutualign.nn.randomness import random_bytes


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: Tensor) -> Tensor:
        ctx.save_for_backward(strength)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -strength.to(gradients[0].dtype) * gradients[0], None


def reverse_gradient(values: Float[Tensor, "*shape"], strength: Tensor | float = 1.0) -> Float[Tensor, "*shape"]:
    """The identity, whose gradient is multiplied by -strength (Ganin and Lempitsky, ICML 2015, eq. 8)."""
    precision = torch.promote_types(values.dtype, torch.float32)
    strength = torch.as_tensor(strength, dtype=precision, device=values.device)
    return _Reverse.apply(values, strength)  # type: ignore[no-any-return, no-untyped-call]


class GradientReversal(nn.Module):
    """`reverse_gradient` as a layer: put it between the features and a domain discriminator.

    >>> features = torch.ones(2, 3, requires_grad=True)
    >>> GradientReversal(0.5)(features).sum().backward()
    >>> features.grad[0].tolist()
    [-0.5, -0.5, -0.5]
    """

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return reverse_gradient(values, self.strength)

    def extra_repr(self) -> str:
        return f"strength={self.strength}"


class Dropout(nn.Module):
    """Dropout whose probability is a multiple of 1/256, so that one 64-bit draw decides eight values.

    torch's own draws one number a value, which took a tenth of the published network's training step on CPU.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 255 / 256:
            raise ValueError(f"dropout probability must be in [0, 255/256], got {p}")
        self.dropped = round(p * 256)

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training or self.dropped == 0:
            return values
        keep = (self._bytes(values) >= self.dropped).to(values.dtype)
        return values * (keep * (256 / (256 - self.dropped)))

    def _bytes(self, values: Tensor) -> Tensor:
        """A random byte a value. Of a shared batch, the bytes of all rows are drawn, and those of the share taken."""
        share = current_share()
        if share is None:
            return random_bytes(values.numel(), values.device).view(values.shape)  # type: ignore[no-any-return]
        rows = share.total, *values.shape[1:]
        return random_bytes(math.prod(rows), values.device).view(rows)[share.start : share.stop]  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"p={self.dropped / 256}"


class BatchNorm2d(nn.BatchNorm2d):
    """torch's; of a batch that processes share, mean and variance are those of all its rows.

    torch's own SyncBatchNorm does that on GPUs only.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, maps: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
        share = current_share()
        if share is None or not self.training:
            return super().forward(maps)
        count = share.total * maps.shape[2] * maps.shape[3]
        values = maps.float()
        mean = sum_over_processes(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = sum_over_processes(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)


def standardise(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
    """Every channel of every image less its mean, over its standard deviation (plus 0.05: a flat one stays flat).

    From two sums over (row and column) in channels-last order: torch.std_mean takes four times as long there on CPU.
    """
    n, channels, height, width = images.shape
    values = images.float().permute(0, 2, 3, 1).reshape(n, height * width, channels)
    mean = values.mean(1, keepdim=True)
    deviation = (values.square().mean(1, keepdim=True) - mean.square()).clamp_min(0).sqrt()
    scale = 1 / (deviation + 0.05)
    return torch.addcmul(-mean * scale, values, scale).view(n, height, width, channels).permute(0, 3, 1, 2)
