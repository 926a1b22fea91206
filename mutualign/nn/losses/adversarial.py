"""Virtual adversarial training: predictions that do not change in a small ball around an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.nn.randomness import separate_draws
from mutualign.nn.shapes import check_shapes


@check_shapes
def divergence(teacher_logits: Float[Tensor, "n classes"], logits: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """Mean KL(teacher || student) of class probabilities, in nats; the teacher gets no gradient.

    >>> float(divergence(torch.zeros(2, 3), torch.zeros(2, 3)))
    0.0
    """
    return F.kl_div(
        logits.log_softmax(1), teacher_logits.detach().log_softmax(1), reduction="batchmean", log_target=True
    )


def virtual_adversarial_loss(
    network: Callable[[Tensor], Tensor],
    images: Float[Tensor, "n channels height width"],
    radius: float = 1.75,
    probe: float = 1e-2,
) -> Float[Tensor, ""]:
    """KL between predictions on images and on their worst neighbours at a distance of `radius`.

    The worst direction is found by one step of the power method from a random direction of length `probe`. The search
    runs in full precision, because bf16 cannot represent so small a step, and leaves no gradient in the network. What
    is random in the network, such as dropout, is drawn alike in all passes, so that only the images differ. The default
    radius is VADA's, for images in [0, 1]. Source: Miyato et al., "Virtual adversarial training", TPAMI 2018, alg. 1;
    VADA, Shu et al., ICLR 2018, eq. 6.

    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> images = torch.rand(2, 1, 4, 4)
    >>> bool(virtual_adversarial_loss(network, images) > 0)
    True
    """
    images = images.detach().float()
    shift = (probe * _unit(torch.randn(images.shape, device=images.device))).requires_grad_()

    def outputs(seen: Tensor) -> Tensor:
        with separate_draws(seen.device):  # the next pass draws the same
            return network(seen).float()

    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        reference = outputs(images).detach()
        change = divergence(reference, outputs(images + shift))
        (gradient,) = torch.autograd.grad(change, shift)
    worst = images + radius * _unit(gradient.detach())
    return divergence(reference, network(worst).float())


def _unit(values: Tensor) -> Tensor:
    """Each image divided by its length; an image of zeros stays zero."""
    return F.normalize(values.flatten(1), dim=1).view_as(values)
