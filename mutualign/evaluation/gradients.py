"""The gradient of each loss of a method at the features, on one batch; the method is left unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.methods import Method, Update
from mutualign.nn.distributed import alone
from mutualign.nn.randomness import separate_draws
from mutualign.training.fabric import Fabric


class LossGradients(NamedTuple):
    """Gradients of a method's losses at the features."""

    norms: dict[str, float]  # by loss, over all rows of the batch; the largest if several updates have the loss
    reversal: float | None  # cosine of the adversary's gradient before and after the reversal: -1 if it works


def loss_gradients(
    method: Method, batch: Batch, progress: Float[Tensor, ""], seed: int, fabric: Fabric
) -> LossGradients:
    """Compute gradient norms in evaluation mode, for the losses of updates that train the features.

    Losses of other players, such as a discriminator with its own optimiser, are left out: their gradient at the
    features is not used. A method without updates has no norms; `reversal` is None without an adversary. Weights,
    buffers, gradients, mode and torch's generator are left as they were.
    """
    features: list[Tensor] = []
    discriminated: list[Tensor] = []
    hooks = [method.classifier.features.register_forward_hook(lambda module, inputs, found: features.append(found))]
    adversary = method.adversary
    if adversary is not None:
        network = adversary.network
        hooks.append(network.register_forward_pre_hook(lambda module, inputs: discriminated.append(inputs[0])))
    with _unchanged(method):  # until the gradients are computed: autograd refuses buffers that were restored before
        try:
            with alone(), separate_draws(fabric.device, seed), fabric.autocast():
                updates: list[Update] = list(method.updates(batch, progress))
        finally:
            for hook in hooks:
                hook.remove()
        places = [place for place in features if place.requires_grad]
        norms = _norms(method, updates, places)
        reversal = None
        same_place = len(places) == len(discriminated) == 1 and places[0].shape == discriminated[0].shape
        if adversary is not None and same_place:
            losses = [update.losses[adversary.loss] for update in updates if adversary.loss in update.losses]
            before, after = (_gradients(losses[0], place)[0] for place in (discriminated, places))
            if before.any() and after.any():
                reversal = float(torch.cosine_similarity(before.flatten(), after.flatten(), dim=0))
    return LossGradients(norms, reversal)


def _norms(method: Method, updates: list[Update], places: list[Tensor]) -> dict[str, float]:
    """The norm of the gradient of each loss at the features, of the updates that train them."""
    trains_features = _players_of_features(method)
    norms: dict[str, float] = {}
    for update in updates:
        for name, loss in update.losses.items():
            if places and trains_features.intersection(update.players):
                norms[name] = max(norms.get(name, 0.0), _norm(_gradients(loss, places)))
    return norms


def _players_of_features(method: Method) -> set[str]:
    """The players whose optimiser moves a weight of the backbone."""
    backbone = {id(weight) for weight in method.classifier.features.parameters()}
    return {
        player
        for player, groups in method.parameter_groups().items()
        if any(id(weight) in backbone for group in groups for weight in group.parameters)
    }


@contextmanager
def _unchanged(method: Method) -> Iterator[None]:
    """Switch to evaluation mode, then restore the mode and the buffers, such as queues that `forward` fills."""
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in method.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    method.eval()
    try:
        yield
    finally:
        method.train()
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                setattr(module, name, buffer.copy_(before))


def _gradients(loss: Tensor, places: list[Tensor]) -> list[Tensor]:
    if not loss.requires_grad:
        return [torch.zeros_like(place, dtype=torch.float32) for place in places]
    found = torch.autograd.grad(loss, places, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [gradient.float() for gradient in found]


def _norm(gradients: list[Tensor]) -> float:
    return float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt())
