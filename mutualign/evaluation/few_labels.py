"""A few labels: which target images to label, and what their labels say about the accuracy and the gain.

This is the only evidence that is valid under errors that all runs share, since nothing is assumed of the classifier.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from mutualign.evaluation.binomial import lower_limit, upper_limit
from mutualign.evaluation.verdict import Range
from mutualign.nn.randomness import generator

RANDOM = 0.6  # of the images to label are drawn from all, if enough others differ between a run and its baseline
MISS = 0.05  # of 95 % intervals


@dataclass(frozen=True)
class LabellingPlan:
    """Rows of the target images to label; the two parts do not overlap.

    random      drawn from all images: valid for the accuracy. All plans on the same images draw in the same order.
    differing   drawn from the images that the run and its baseline put into different classes: valid for the gain
    """

    random: Int64[Tensor, " random"]
    differing: Int64[Tensor, " differing"]


def plan_labelling(
    ours: Int64[Tensor, " n"], baseline: Int64[Tensor, " n"] | None, wanted: int, key: str
) -> LabellingPlan:
    """Choose up to `wanted` of n target images.

    `ours` are the classes that the run predicts, `baseline` those of the source-only run, None if there is none; `key`
    identifies the images. The length of the random part depends on no drawn image, so that its interval is exact.
    """
    n = len(ours)
    order, wanted = drawing_order(n, key), min(wanted, n)
    differ = 0 if baseline is None else int((ours != baseline).sum())
    random = order[: wanted if n == wanted else max(1, round(RANDOM * wanted), wanted - differ)]
    return LabellingPlan(random, differing_rows(order, random, ours, baseline)[: wanted - len(random)])


def drawing_order(n: int, key: str) -> Int64[Tensor, " n"]:
    """Return n target images in the order in which they are drawn, the same for all runs on the same images."""
    return torch.randperm(n, generator=generator("few labels", key))


def differing_rows(
    order: Int64[Tensor, " n"],
    random: Int64[Tensor, " random"],
    ours: Int64[Tensor, " n"],
    baseline: Int64[Tensor, " n"] | None,
) -> Int64[Tensor, " differing"]:
    """Return the rows that a run and its baseline put into different classes, in the order in which they are drawn.

    Those of the `random` part are left out. Only a first part of these rows is a random sample of them.
    """
    chosen = torch.zeros(len(order), dtype=torch.bool) if baseline is None else ours != baseline
    chosen[random] = False
    return order[chosen[order]]


def labelled_accuracy(predicted: Int64[Tensor, " random"], labels: Int64[Tensor, " random"]) -> Range:
    """Return the accuracy on images that were drawn at random, with its exact 95 % interval (Clopper-Pearson)."""
    right, n = int((predicted == labels).sum()), len(labels)
    return Range(right / n, lower_limit(right, n, MISS / 2), upper_limit(right, n, MISS / 2))


def labelled_gain(
    apart: float, ours: Int64[Tensor, " m"], theirs: Int64[Tensor, " m"], labels: Int64[Tensor, " m"]
) -> Range:
    """Return the gain over the baseline, with its 95 % interval.

    The two differ on a share `apart` of all images, which is known; on the others the gain is 0. The m labelled images
    were drawn at random from those that differ. Each of four exact binomial limits misses with 1.25 % at most. No
    labelled image leaves the range that is certain without labels.
    """
    n = len(labels)
    if n == 0:
        return Range(0.0, -apart, apart)
    won, lost, miss = int((ours == labels).sum()), int((theirs == labels).sum()), MISS / 4
    low = lower_limit(won, n, miss) - upper_limit(lost, n, miss)
    high = upper_limit(won, n, miss) - lower_limit(lost, n, miss)
    return Range(apart * (won - lost) / n, apart * max(low, -1.0), apart * min(high, 1.0))
