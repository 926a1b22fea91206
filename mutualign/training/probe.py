"""A probe: the gradient that each loss of an algorithm has at the features, on one batch; nothing is changed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from mutualign.algorithms import Algorithm
from mutualign.data.images import Batch
from mutualign.nn.sharing import alone


class Gradients(NamedTuple):
    """What a probe finds."""

    norms: dict[str, float]  # by loss, over all rows of the batch
    reversal: float | None  # cosine of the domain loss's gradient before and after the reversal: -1 where it works


def probe(algorithm: Algorithm, batch: Batch, progress: Float[Tensor, ""], seed: int, fabric: Fabric) -> Gradients:
    """Norms of the gradient of each loss at the features, in evaluation mode; None where there is nothing to reverse.

    Weights, running statistics, optimiser and torch's generator are left as they were found.
    """
    features: list[Tensor] = []
    discriminated: list[Tensor] = []
    hooks = [algorithm.classifier.features.register_forward_hook(lambda module, inputs, found: features.append(found))]
    if (discriminator := getattr(algorithm, "discriminator", None)) is not None:
        hooks.append(discriminator.register_forward_pre_hook(lambda module, inputs: discriminated.append(inputs[0])))
    algorithm.eval()
    try:
        with alone(), torch.random.fork_rng(), fabric.autocast():
            torch.manual_seed(seed)
            losses, _ = algorithm(batch, progress)
    finally:
        algorithm.train()
        for hook in hooks:
            hook.remove()
    norms = {name: _norm(_gradients(loss, features)) for name, loss in losses.items()}
    reversal = None
    if "domain" in losses and len(features) == len(discriminated) == 1 and features[0].shape == discriminated[0].shape:
        before, after = (_gradients(losses["domain"], places)[0] for places in (discriminated, features))
        if before.any() and after.any():
            reversal = float(torch.cosine_similarity(before.flatten(), after.flatten(), dim=0))
    return Gradients(norms, reversal)


def _gradients(loss: Tensor, places: list[Tensor]) -> list[Tensor]:
    if not loss.requires_grad:
        return [torch.zeros_like(place, dtype=torch.float32) for place in places]
    found = torch.autograd.grad(loss, places, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [gradient.float() for gradient in found]


def _norm(gradients: list[Tensor]) -> float:
    return float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt())
