"""The gradient of each loss of a method at the features, on one batch; nothing is changed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods import Method, Update
from mutualign.nn.distributed import alone


class LossGradients(NamedTuple):
    """Gradients of a method's losses at the features."""

    norms: dict[str, float]  # by loss, over all rows of the batch; the largest if several updates have the loss
    reversal: float | None  # cosine of the adversary's gradient before and after the reversal: -1 if it works


def loss_gradients(
    method: Method, batch: Batch, progress: Float[Tensor, ""], seed: int, fabric: Fabric
) -> LossGradients:
    """Compute the gradient norms of all losses in evaluation mode; `reversal` is None without an adversary.

    Weights, running statistics, optimiser and torch's generator are left as they were.
    """
    features: list[Tensor] = []
    discriminated: list[Tensor] = []
    hooks = [method.classifier.features.register_forward_hook(lambda module, inputs, found: features.append(found))]
    adversary = method.adversary
    if adversary is not None:
        network = adversary.network
        hooks.append(network.register_forward_pre_hook(lambda module, inputs: discriminated.append(inputs[0])))
    method.eval()
    try:
        with alone(), torch.random.fork_rng(), fabric.autocast():
            torch.manual_seed(seed)
            updates: list[Update] = list(method.updates(batch, progress))
    finally:
        method.train()
        for hook in hooks:
            hook.remove()
    norms: dict[str, float] = {}
    for update in updates:
        for name, loss in update.losses.items():
            norms[name] = max(norms.get(name, 0.0), _norm(_gradients(loss, features)))
    reversal = None
    same_place = len(features) == len(discriminated) == 1 and features[0].shape == discriminated[0].shape
    if adversary is not None and same_place:
        loss = next(update.losses[adversary.loss] for update in updates if adversary.loss in update.losses)
        before, after = (_gradients(loss, places)[0] for places in (discriminated, features))
        if before.any() and after.any():
            reversal = float(torch.cosine_similarity(before.flatten(), after.flatten(), dim=0))
    return LossGradients(norms, reversal)


def _gradients(loss: Tensor, places: list[Tensor]) -> list[Tensor]:
    if not loss.requires_grad:
        return [torch.zeros_like(place, dtype=torch.float32) for place in places]
    found = torch.autograd.grad(loss, places, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [gradient.float() for gradient in found]


def _norm(gradients: list[Tensor]) -> float:
    return float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()) if gradients else 0.0
