"""Mutual-information losses, and the sampling of the pairs that they compare."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mutualign.nn.shapes import check_shapes


@check_shapes
def jsd_mutual_information(
    joint: Float[Tensor, " pairs"],
    marginal: Float[Tensor, " pairs"],
    valid: Bool[Tensor, " pairs"] | None = None,
) -> Float[Tensor, ""]:
    """Negated Jensen-Shannon objective of mutual information, in nats.

    E[softplus(-T(a, b+))] + E[softplus(T(a, b-))], with T the critic's scores of `joint` and of `marginal` pairs, and
    the mean over the `valid` pairs (all by default). It is 2 ln 2 for a critic whose scores are all 0. Without a valid
    pair it is exactly 0, with a gradient of 0. Half-precision scores give a float32 loss. Scores of other pairs have no
    effect, even if they are not finite. Raises ValueError if the shapes differ.

    If the marginal pairs are not of independent images but of different classes, as in MaNi, it is no bound on mutual
    information: it says how well the critic separates the two kinds of pairs.

    Source: Hjelm et al., "Deep InfoMax", ICLR 2019, eq. 4; Sharma et al., "MaNi", MICCAI 2022.

    >>> round(float(jsd_mutual_information(torch.zeros(3), torch.zeros(3))), 4)
    1.3863
    """
    precision = torch.promote_types(joint.dtype, torch.float32)  # a sum of float16 scores overflows
    joint, marginal = joint.to(precision), marginal.to(precision)
    if valid is None:
        return (F.softplus(-joint) + F.softplus(marginal)).sum() / max(joint.numel(), 1)
    # Masked before and after: the gradient of softplus at NaN is NaN, also when it is multiplied by 0.
    joint, marginal = torch.where(valid, joint, 0), torch.where(valid, marginal, 0)
    return _mean_where(valid, F.softplus(-joint) + F.softplus(marginal))


@check_shapes
def all_pairs_mutual_information(
    scores: Float[Tensor, "a b"], same: Bool[Tensor, "a b"], valid: Bool[Tensor, "a b"] | None = None
) -> Float[Tensor, ""]:
    """The loss of `jsd_mutual_information` over every pair of two batches, in nats, without sampling.

    The first mean is over the `valid` pairs of the `same` class, the second over the valid pairs of different classes.
    A mean over no pairs is exactly 0, with a gradient of 0. Raises ValueError if the shapes differ.

    >>> scores, same = torch.zeros(2, 2), torch.eye(2).bool()
    >>> round(float(all_pairs_mutual_information(scores, same)), 4)
    1.3863
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if valid is None:
        return _mean_where(same, F.softplus(-scores)) + _mean_where(~same, F.softplus(scores))
    scores, joint, marginal = torch.where(valid, scores, 0), same & valid, ~same & valid
    return _mean_where(joint, F.softplus(-scores)) + _mean_where(marginal, F.softplus(scores))


def _mean_where(chosen: Bool[Tensor, "*shape"], values: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Return the mean of the chosen values, 0 if none is chosen."""
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)


class Pairs(NamedTuple):
    """Row numbers in a source batch and in a target batch, by slot: `source[i]` and `target[i]` share a class.

    `other_source[i]` and `other_target[i]` are of other classes. Slots that are not `valid` contain arbitrary rows.

    >>> rows, none = torch.tensor([0, 1]), torch.tensor([False, False])
    >>> Pairs(rows, rows, rows.flip(0), rows.flip(0), valid=none).valid.any().item()
    False
    """

    source: Int64[Tensor, " slots"]
    target: Int64[Tensor, " slots"]
    other_source: Int64[Tensor, " slots"]
    other_target: Int64[Tensor, " slots"]
    valid: Bool[Tensor, " slots"]


@check_shapes
def sample_pairs(
    source_labels: Int64[Tensor, " source"],
    target_labels: Int64[Tensor, " target"],
    confident: Bool[Tensor, " target"],
    classes: int,
) -> Pairs:
    """Draw same-class pairs across two batches, each with one image of another class from either side.

    The number of pairs of a class is the smallest of: its source images, its confident target images, the confident
    target images of other classes, and the source images of other classes. In each of these four roles an image is
    drawn at most once per class. There are always min(source, target) slots, so that shapes do not depend on the
    labels. Draws from torch's global generator. Raises ValueError if `confident` does not fit `target_labels`.

    Source: the pairing of the published MaNi code.

    >>> labels, confident = torch.tensor([0, 1]), torch.tensor([True, True])
    >>> pairs = sample_pairs(labels, labels.flip(0), confident, classes=2)
    >>> pairs.source.tolist(), pairs.target.tolist()
    ([0, 1], [1, 0])
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
    """Return, per class, its members in a random order, then all others."""
    return torch.rand(members.shape, device=members.device).masked_fill_(~members, 2).argsort(dim=1)
