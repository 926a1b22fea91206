"""Layers that the networks and the losses share: gradient reversal and a dropout that is cheap on CPU."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


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


@torch.library.custom_op("mutualign::random_bytes", mutates_args=(), schema="(int count, Device device) -> Tensor")
def random_bytes(count: int, device: torch.device) -> Tensor:
    """Uniform uint8 values, eight from each 64-bit draw; an operator, as torch.compile cannot trace `random_`."""
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=device)
    return words.random_(-(2**63), None).view(torch.uint8)[:count]


@random_bytes.register_fake
def _(count: int, device: torch.device) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=device)


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
        bytes_: Tensor = random_bytes(values.numel(), values.device).view(values.shape)
        keep = (bytes_ >= self.dropped).to(values.dtype)
        return values * (keep * (256 / (256 - self.dropped)))

    def extra_repr(self) -> str:
        return f"p={self.dropped / 256}"
