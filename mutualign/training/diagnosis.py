"""Diagnosis: what in a step was not finite, and which images it came from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from lightning_fabric import Fabric
from torch import Tensor

from mutualign.algorithms import Algorithm
from mutualign.data.images import Batch
from mutualign.nn.sharing import alone
from mutualign.training.batches import Rows

SHOWN = 8  # images of a domain that are named


def diagnose(
    algorithm: Algorithm, losses: Mapping[str, Tensor], batch: Batch, rows: Rows, step: str, fabric: Fabric
) -> str:
    """What to tell of a step whose losses or gradients, which its parameters have, are not finite."""
    values = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
    if all(loss.isfinite() for loss in losses.values()):
        names = [name for name, weight in algorithm.named_parameters() if not _finite(weight.grad)]
        what = f"a gradient is not finite at {step}: of {', '.join(names[:3])} (losses: {values})"
    else:
        what = f"loss is not finite at {step}: {values}"
    everything = torch.ones(len(batch.images), dtype=torch.bool)
    return (
        f"{what}\n  from     {_origin(algorithm, batch, rows, fabric)}\n  batch    {_named(rows, everything)}\n"
        "  do       lower the learning rate, or try precision=float32"
    )


def _origin(algorithm: Algorithm, batch: Batch, rows: Rows, fabric: Fabric) -> str:
    """Where it began, as far as that can be seen."""
    if (bad := ~_finite_rows(batch.images)).any():
        return f"images that are not finite themselves: {_named(rows, bad)}"
    if broken := [name for name, weight in algorithm.named_parameters() if not _finite(weight)]:
        return f"a weight that was not finite before the step: {broken[0]}"
    algorithm.eval()
    try:
        with torch.no_grad(), alone(), fabric.autocast():
            logits = algorithm.classifier(batch.images)
    finally:
        algorithm.train()
    if (bad := ~_finite_rows(logits)).any():
        return f"images whose logits are not finite: {_named(rows, bad)}"
    return "the losses' own arithmetic: images, weights and logits are finite"


def _named(rows: Rows, chosen: Bool[Tensor, " batch"]) -> str:
    """The chosen images of a batch, by domain and index; the first few, if there are many."""
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
