"""Losses: pure functions from tensors to a scalar, and the pairs that the mutual-information loss is taken over."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def jsd_mutual_information(
    joint: Float[Tensor, " pairs"],
    marginal: Float[Tensor, " pairs"],
    valid: Bool[Tensor, " pairs"] | None = None,
) -> Float[Tensor, ""]:
    """Negated Jensen-Shannon lower bound on mutual information, in nats.

    E[softplus(-T(a, b+))] + E[softplus(T(a, b-))], with T the critic's scores of `joint` and of `marginal` pairs, the
    mean taken over the pairs that are `valid` (all of them by default); 2 ln 2 where the critic knows nothing. No valid
    pair gives exactly 0, with a gradient of 0. Half-precision scores give a float32 loss.

    Source: Hjelm et al., "Deep InfoMax", ICLR 2019, eq. 4; Sharma et al., "MaNi", MICCAI 2022.

    >>> round(float(jsd_mutual_information(torch.zeros(3), torch.zeros(3))), 4)
    1.3863
    """
    precision = torch.promote_types(joint.dtype, torch.float32)  # a sum of float16 scores overflows
    bound = F.softplus(-joint.to(precision)) + F.softplus(marginal.to(precision))
    if valid is None:
        return bound.sum() / max(bound.numel(), 1)
    return torch.where(valid, bound, 0).sum() / valid.sum().clamp(min=1)


def all_pairs_mutual_information(
    scores: Float[Tensor, "a b"], same: Bool[Tensor, "a b"], valid: Bool[Tensor, "a b"] | None = None
) -> Float[Tensor, ""]:
    """The bound of `jsd_mutual_information` over every pair of two batches, in nats: nothing is drawn.

    The joint distribution is the mean over the `valid` pairs of the `same` class, the marginal one the mean over the
    valid pairs of different classes. A mean over no pairs is exactly 0, with a gradient of 0.

    >>> round(float(all_pairs_mutual_information(torch.zeros(2, 2), torch.eye(2).bool())), 4)
    1.3863
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    valid = torch.ones_like(same) if valid is None else valid
    joint, marginal = same & valid, ~same & valid
    return _mean_where(joint, F.softplus(-scores)) + _mean_where(marginal, F.softplus(scores))


def _mean_where(chosen: Bool[Tensor, "a b"], values: Float[Tensor, "a b"]) -> Float[Tensor, ""]:
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)


class Pairs(NamedTuple):
    """Rows of a source batch and of a target batch, slot by slot: `source[i]` and `target[i]` share a class.

    `other_source[i]` and `other_target[i]` are of other classes. Slots that are not `valid` point anywhere.
    """

    source: Int64[Tensor, " slots"]
    target: Int64[Tensor, " slots"]
    other_source: Int64[Tensor, " slots"]
    other_target: Int64[Tensor, " slots"]
    valid: Bool[Tensor, " slots"]


def sample_pairs(
    source_labels: Int64[Tensor, " source"],
    target_labels: Int64[Tensor, " target"],
    confident: Bool[Tensor, " target"],
    classes: int,
) -> Pairs:
    """Draw same-class pairs across two batches, each with one image of another class from either side.

    A class gives as many pairs as the smallest of: its source images, its confident target images, the confident target
    images of other classes, and the source images of other classes. Within a role no image is drawn twice for a class.
    There are always min(source, target) slots, so that the shapes do not depend on the labels.

    Source: the pairing of the published MaNi code; draws from torch's global generator.
    """
    each_class = torch.arange(classes, device=source_labels.device)[:, None]
    of_source = source_labels == each_class  # [classes, source]
    of_target = (target_labels == each_class) & confident  # [classes, target]
    not_source, not_target = ~of_source, (target_labels != each_class) & confident
    roles = (of_source, of_target, not_source, not_target)
    counts = torch.stack([role.sum(1) for role in roles]).amin(0)

    slots = min(len(source_labels), len(target_labels))
    wanted = torch.arange(slots, device=counts.device) < counts[:, None]  # [classes, slots]
    first = wanted.flatten().to(torch.uint8).argsort(descending=True, stable=True)[:slots]
    source, target, other_source, other_target = [_shuffled(role)[:, :slots].flatten()[first] for role in roles]
    return Pairs(source, target, other_source, other_target, wanted.flatten()[first])


def _shuffled(members: Bool[Tensor, "classes images"]) -> Int64[Tensor, "classes images"]:
    """For each class its members in a random order, then all others."""
    return torch.rand(members.shape, device=members.device).masked_fill_(~members, 2).argsort(dim=1)
