"""Optimal transport between two batches, by the POT library (extra `transport`)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mutualign.errors import MutualignError
from mutualign.nn.losses.discrepancy import squared_distances
from mutualign.nn.shapes import check_shapes


@check_shapes
def transport_cost(
    source: Float[Tensor, "source features"],
    labels: Int64[Tensor, " source"],
    target: Float[Tensor, "target features"],
    target_logits: Float[Tensor, "target classes"],
    feature_weight: float = 0.001,
    label_weight: float = 0.0001,
) -> Float[Tensor, ""]:
    """<plan, cost> with cost = a |f_s - f_t|^2 + l CE(y_s, p_t); the exact plan is computed without gradient.

    The authors' code has squared distances of probabilities in the plan's cost, and cross-entropies in the loss alone.
    Raises MutualignError if POT is not installed. Source: Damodaran et al., "DeepJDOT", ECCV 2018, eq. 5 to 7.

    >>> features, labels = torch.tensor([[0.0], [5.0]]), torch.tensor([0, 1])
    >>> float(transport_cost(features, labels, features, 99 * torch.eye(2)))
    0.0
    """
    try:
        import ot
    except ImportError as error:
        raise MutualignError("DeepJDOT needs POT\n  hint:    pip install 'mutualign[transport]'") from error
    distances = squared_distances(source, target)
    cross_entropies = -target_logits.float().log_softmax(1)[:, labels].T
    cost = feature_weight * distances + label_weight * cross_entropies
    weights = (torch.full((n,), 1 / n, dtype=torch.float64).numpy() for n in cost.shape)
    plan = ot.emd(*weights, cost.detach().double().cpu().numpy())
    return (torch.as_tensor(plan, dtype=cost.dtype, device=cost.device) * cost).sum()
