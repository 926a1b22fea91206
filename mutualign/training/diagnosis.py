"""Detection of losses and gradients that are not finite, without stalling a GPU, and their diagnosis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.errors import MutualignError
from mutualign.methods import Method, Update
from mutualign.nn.distributed import alone
from mutualign.training.batches import Rows
from mutualign.training.fabric import Fabric

SHOWN = 8  # images of a domain that are named


class NotFinite(MutualignError):
    """A loss, a gradient or a weight is NaN or infinite; the last checkpoint is intact."""


class FiniteCheck:
    """Checks the loss and the gradients of every update.

    `NotFinite` is raised before the weights change, except on CUDA devices: there, reading the outcome would stall the
    device in every step. Instead, the fused optimiser skips the update and all later ones by itself, and the error is
    raised at the next `raise_if_any`: before a checkpoint is written, and at the end of an epoch.
    """

    def __init__(self, method: Method, fabric: Fabric, where: str, deferred: bool | None = None) -> None:
        self.method, self.fabric, self.where = method, fabric, where
        self.deferred = fabric.device.type == "cuda" if deferred is None else deferred
        self.first_bad = torch.full((), -1, device=fabric.device)  # the first step that was not finite

    def __call__(
        self, update: Update, batch: Batch, rows: Rows, step: int, optimisers: Sequence[torch.optim.Optimizer]
    ) -> None:
        """Check an update whose gradients have been computed, before the optimisers take their steps."""
        groups = [group for optimiser in optimisers for group in optimiser.param_groups]
        gradients = [weight.grad for group in groups for weight in group["params"] if weight.grad is not None]
        total = update.total.detach()
        finite = total.isfinite() & _extremes(gradients).isfinite().all().to(total.device)
        if self.deferred:
            self.first_bad = torch.where((self.first_bad < 0) & ~finite, step, self.first_bad)
            for optimiser in optimisers:
                optimiser.found_inf = (self.first_bad >= 0).float()  # type: ignore[attr-defined]
        elif not finite:
            raise NotFinite(
                diagnose(self.method, update.losses, batch, rows, f"{self.where}, step {step}", self.fabric)
            )

    def raise_if_any(self) -> None:
        """Raise NotFinite if an update since the start was not finite; this waits for the device."""
        if self.deferred and (step := int(self.first_bad)) >= 0:
            raise NotFinite(
                f"a loss or a gradient is not finite at {self.where}, step {step}; later steps were skipped\n"
                "  hint:    lower the learning rate, or try precision=float32; the same run on the CPU names the cause"
            )


def _extremes(gradients: Sequence[Tensor]) -> Tensor:
    """Return values of which one is NaN or infinite if any gradient is; unlike a sum of squares they cannot overflow.

    On a GPU this is the largest absolute value, in one kernel for all. On the CPU that norm is not vectorised: twenty
    times slower than the smallest and the largest value.
    """
    if gradients and gradients[0].device.type == "cpu":
        return torch.stack([extreme for gradient in gradients for extreme in torch.aminmax(gradient)])
    return torch.nn.utils.get_total_norm(gradients, norm_type=math.inf)


@contextmanager
def explain_batch_norm(stage: str, batch_size: int) -> Iterator[None]:
    """Context that turns torch's error about batch norm of a single value into one that names stage and setting."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise MutualignError(
            f"{stage}: batch normalisation needs more than one image in a batch; batch_size is {batch_size}\n"
            "  hint:    a larger batch_size, more images, or a backbone without batch normalisation, such as mani_cnn"
        ) from error


def diagnose(method: Method, losses: Mapping[str, Tensor], batch: Batch, rows: Rows, step: str, fabric: Fabric) -> str:
    """Compose the error message for a step whose losses or gradients are not finite."""
    values = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
    if all(loss.isfinite() for loss in losses.values()):
        names = [name for name, weight in method.named_parameters() if not _finite(weight.grad)]
        what = f"a gradient is not finite at {step}: of {', '.join(names[:3])} (losses: {values})"
    else:
        what = f"loss is not finite at {step}: {values}"
    everything = torch.ones(len(batch.images), dtype=torch.bool)
    return (
        f"{what}\n  from     {_origin(method, batch, rows, fabric)}\n  batch    {_named(rows, everything)}\n"
        "  hint:    lower the learning rate, or try precision=float32"
    )


def _origin(method: Method, batch: Batch, rows: Rows, fabric: Fabric) -> str:
    """Describe the first place where values are not finite: images, weights, logits, or the losses."""
    if (bad := ~_finite_rows(batch.images)).any():
        return f"images that are not finite themselves: {_named(rows, bad)}"
    if broken := [name for name, weight in method.named_parameters() if not _finite(weight)]:
        return f"a weight that was not finite before the step: {broken[0]}"
    method.eval()
    try:
        with torch.no_grad(), alone(), fabric.autocast():
            logits = method.classifier(batch.images)
    finally:
        method.train()
    if (bad := ~_finite_rows(logits)).any():
        return f"images whose logits are not finite: {_named(rows, bad)}"
    return "the arithmetic of the losses: images, weights and logits are finite"


def _named(rows: Rows, chosen: Bool[Tensor, " batch"]) -> str:
    """List the chosen images of a batch by domain and index; only the first few if there are many."""
    parts = chosen.cpu().tensor_split([len(rows.source)])
    shown = []
    for domain, indices, flags in zip(rows._fields, rows, parts, strict=True):
        if found := indices[flags].tolist():
            more = f", ... ({len(found)} in all)" if len(found) > SHOWN else ""
            shown.append(f"{domain} {', '.join(map(str, found[:SHOWN]))}{more}")
    return "; ".join(shown)


def _finite(values: Tensor | None) -> bool:
    return values is None or bool(values.isfinite().all())


def _finite_rows(values: Tensor) -> Bool[Tensor, " batch"]:
    return values.flatten(1).isfinite().all(1)
