"""Layers that the networks share: gradient reversal, a dropout that is cheap on CPU, batch norm over processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Union, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.nn.distributed import current_share, draw_rows, sum_over_processes
from mutualign.nn.randomness import random_bytes

# torch.jit.script reads neither jaxtyping's annotations nor `Tensor | float`.


def reverse_gradient(values: Tensor, strength: Union[Tensor, float] = 1.0) -> Tensor:  # noqa: UP007
    """The identity, whose gradient is multiplied by -strength (Ganin and Lempitsky, ICML 2015, eq. 8).

    `values` may have any shape and any floating-point type. A `strength` tensor is 0-d and gets no gradient; under
    `torch.compile` it may change without recompilation. Works under `torch.func`, under `torch.jit.script` and before
    in-place layers. Infinite values become NaN.

    >>> values = torch.ones(3, requires_grad=True)
    >>> reverse_gradient(values, 0.5).sum().backward()
    >>> values.grad.tolist()
    [-0.5, -0.5, -0.5]
    """
    if isinstance(strength, Tensor):
        weight = -strength.detach().to(device=values.device, dtype=values.dtype)
    else:
        weight = torch.full((), -strength, dtype=values.dtype, device=values.device)
    # v + w (v - v): exactly v, since v - v is 0; only the second v has a gradient.
    return torch.lerp(values.detach(), values, weight)


class GradientReversal(nn.Module):
    """`reverse_gradient` as a layer: put it between the features and a domain discriminator.

    `strength` may be set between steps, also of a compiled layer. It is not part of `state_dict()`.

    >>> features = torch.ones(2, 3, requires_grad=True)
    >>> GradientReversal(0.5)(features).sum().backward()
    >>> features.grad[0].tolist()
    [-0.5, -0.5, -0.5]
    """

    __jit_unused_properties__ = ["strength"]  # noqa: RUF012 - torch.jit wants a list

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("_strength", torch.tensor(float(strength), dtype=torch.float32), persistent=False)

    @property
    def strength(self) -> float:
        """The factor that the gradient is multiplied by, without its minus sign."""
        return float(self.get_buffer("_strength"))

    @strength.setter
    def strength(self, value: float) -> None:
        self.get_buffer("_strength").fill_(value)

    def forward(self, values: Tensor) -> Tensor:
        return reverse_gradient(values, self._strength)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"strength={self.strength:g}"


class Dropout(nn.Module):
    """Dropout whose probability is a multiple of 1/256, so that one 64-bit draw decides eight values.

    torch's own draws one number per value, which took a tenth of the published network's training step on CPU.
    Raises ValueError unless the probability is in [0, 255/256]. Under `torch.jit.script` and `torch.func.vmap` it is
    torch's own, which heeds vmap's `randomness`.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 255 / 256:
            raise ValueError(f"dropout probability must be in [0, 255/256], got {p}")
        self.dropped = round(p * 256)

    def forward(self, values: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return F.dropout(values, self.dropped / 256, self.training)
        if not self.training or self.dropped == 0:
            return values
        if torch._C._functorch.is_batchedtensor(values):
            return F.dropout(values, self.dropped / 256)
        keep = (self._bytes(values) >= self.dropped).to(values.dtype)
        return values * (keep * (256 / (256 - self.dropped)))

    @torch.jit.unused
    def _bytes(self, values: Tensor) -> Tensor:
        """Draw a random byte per value."""
        row = values.shape[1:]
        return draw_rows(len(values), lambda n: random_bytes(n * math.prod(row), values.device).view(n, *row))

    def extra_repr(self) -> str:
        return f"p={self.dropped / 256}"


class BatchNorm2d(nn.BatchNorm2d):
    """torch's batch norm; if processes share a batch, mean and variance are taken over all its rows.

    torch's own SyncBatchNorm does so on GPUs only.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float | None

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
            weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, weight)
            self.running_var.lerp_(variance * count / max(count - 1, 1), weight)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)


class BatchNorm1d(BatchNorm2d):
    """`BatchNorm2d` for feature vectors [n, features]."""

    def forward(self, rows: Float[Tensor, "n features"]) -> Float[Tensor, "n features"]:
        return super().forward(rows[:, :, None, None])[:, :, 0, 0]


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norm layers of a module, torch's own and those of other packages included."""
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


@contextmanager
@no_type_check  # torch.compile traces a generator, but not the wrapper with which tests check types
def statistics_momentum(module: nn.Module, momentum: float | None) -> Iterator[None]:
    """Context in which the running statistics of batch norm have another momentum.

    0 keeps them as they are, for passes over images that are not of the data, such as adversarial ones. None makes them
    plain averages over all batches since they were reset.
    """
    layers = batch_norms(module)
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = momentum
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.momentum = own


def standardise(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
    """Subtract each channel's mean over the image, and divide by its standard deviation + 0.05.

    The 0.05 keeps flat images flat. Their variance counts as 1e-8: at 0 the slope of the root is infinite. Two sums in
    channels-last order take a quarter of torch.std_mean's time on CPU.
    """
    n, channels, height, width = images.shape
    values = images.float().permute(0, 2, 3, 1).reshape(n, height * width, channels)
    mean = values.mean(1, keepdim=True)
    deviation = (values.square().mean(1, keepdim=True) - mean.square()).clamp_min(1e-8).sqrt()
    scale = 1 / (deviation + 0.05)
    return torch.addcmul(-mean * scale, values, scale).view(n, height, width, channels).permute(0, 3, 1, 2)
