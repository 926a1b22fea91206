"""How frequent the classes are in the target: estimated from predictions, uniform where these may be wrong."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mutualign.nn.shapes import check_shapes


class UniformPrior(nn.Module):
    """Class frequencies of the target, for `information_maximisation`: uniform.

    Its type differs from that of estimates, so that a stage with it does not start from those of an earlier stage.
    """

    shares: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("shares", torch.full((classes,), 1 / classes))

    @property
    def from_uniform(self) -> Float[Tensor, ""]:
        """The distance from uniform frequencies in total variation: the share of images that differ."""
        return (self.shares - 1 / len(self.shares)).abs().sum() / 2


class EstimatedPrior(UniformPrior):
    """Class frequencies of the target, for `information_maximisation`: uniform until the first `update`."""

    def update(self, probabilities: Float[Tensor, "n classes"], neighbours: Int64[Tensor, "n k"] | None = None) -> None:
        """Estimate the frequencies from predictions on target images, and the nearest neighbours of each, if known.

        The share of wrong labels is taken to be how often neighbours get another label. Without neighbours it is
        1 - E max p, what the predictions themselves expect: too much early in training, and too little once they are
        trained to be certain. Uniform predictions are of images that training has not reached yet: they do not count.
        """
        known = probabilities.amax(1) > probabilities.amin(1)
        if not known.any():
            return
        if neighbours is None:
            errors = 1 - probabilities[known].amax(1).mean()
        else:
            labels = probabilities.argmax(1)
            pairs = known[:, None] & known[neighbours]
            errors = (labels[neighbours] != labels[:, None])[pairs].float().mean().nan_to_num(1.0)  # without pairs: all
        self.shares.copy_(plausible_shares(probabilities[known], errors))


PRIORS = {"uniform": UniformPrior, "estimated": EstimatedPrior}


@check_shapes
def plausible_shares(probabilities: Float[Tensor, "n classes"], errors: Float[Tensor, ""]) -> Float[Tensor, " classes"]:
    """Return the class frequencies nearest to uniform ones that predictions with a share of `errors` leave possible.

    If a share e of the predicted classes is wrong, the true frequencies are within e of the predicted ones in total
    variation. The result is the point at this distance on the way from the predicted frequencies c to uniform ones u:
    (1 - a) c + a u, with a = min(1, e / TV(c, u)). Half an image is added to each class, as by Jeffreys' prior, so that
    no frequency is 0; between equal probabilities an image is divided.

    >>> rows = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    >>> plausible_shares(rows, torch.tensor(0.0)), plausible_shares(rows, torch.tensor(0.3))
    (tensor([0.7000, 0.3000]), tensor([0.5000, 0.5000]))
    """
    n, classes = probabilities.shape
    top = (probabilities == probabilities.amax(1, keepdim=True)).float()
    predicted = ((top / top.sum(1, keepdim=True)).sum(0) + 0.5) / (n + 0.5 * classes)
    away = predicted - 1 / classes
    kept = 1 - (errors / (away.abs().sum() / 2).clamp_min(torch.finfo(away.dtype).tiny)).clamp_max(1)
    return 1 / classes + kept * away
