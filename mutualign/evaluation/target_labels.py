"""Evaluation: the only reader of target labels. Nothing here feeds back into training or selection."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mutualign.data.types import LabelledImages, TargetDataset
from mutualign.evaluation.records import PseudoLabelQuality


def source_accuracy(logits: Float[Tensor, "n classes"], images: LabelledImages) -> float:
    """The share of source images whose largest logit is the label's."""
    return _accuracy(logits, images.labels)


def target_accuracy(logits: Float[Tensor, "n classes"], images: TargetDataset) -> float | None:
    """The share of target images whose largest logit is the sealed label's; None where there are no labels."""
    labels = images.reveal_labels()
    return None if labels is None else _accuracy(logits, labels)


def pseudo_label_quality(
    logits: Float[Tensor, "n classes"], images: TargetDataset, rows: Int64[Tensor, " n"], threshold: float
) -> PseudoLabelQuality:
    """Coverage and precision of the pseudo-labels that `logits` of the images at `rows` give."""
    confidence, predicted = logits.softmax(1).max(1)
    confident = confidence >= threshold
    coverage, labels = float(confident.double().mean()), images.reveal_labels()
    if labels is None:
        return PseudoLabelQuality(coverage, None)
    right = (predicted == labels[rows]) & confident
    return PseudoLabelQuality(coverage, float(right.sum() / confident.sum().clamp(min=1)))


GALLERIES = ("confident_right", "confident_wrong", "least_confident")
BINS = 10  # of the reliability diagram


def review(
    logits: Float[Tensor, "n classes"], images: TargetDataset, rows: Int64[Tensor, " n"], gallery: int
) -> dict[str, Tensor]:
    """What labels tell of the logits of the images at `rows`, to be looked at.

    labels         [n]
    confusion      [classes, classes], counts: a row a true class, a column a predicted one
    reliability    [10, 3]: of each tenth of top probability its images, their mean top probability, their accuracy
    confident_right, confident_wrong, least_confident    positions in `logits` of up to `gallery` images: the surest
                   predictions that are right, and wrong, and the least sure ones, right or not

    Where there are no labels, the least sure ones are all that is known.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    surest = confidence.argsort(descending=True, stable=True)
    least_confident = surest.flip(0)[:gallery]
    found, classes = images.reveal_labels(), logits.shape[1]
    if found is None:
        return {"least_confident": least_confident}
    labels = found[rows]
    right = predicted == labels
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    counts = torch.bincount(bins, minlength=BINS).double()
    sums = (torch.bincount(bins, weights=values, minlength=BINS) for values in (confidence, right.double()))
    means = [total / counts.clamp(min=1) for total in sums]
    return {
        "labels": labels,
        "confusion": torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes),
        "reliability": torch.stack([counts, *means], dim=1),
        "confident_right": surest[right[surest]][:gallery],
        "confident_wrong": surest[~right[surest]][:gallery],
        "least_confident": least_confident,
    }


def _accuracy(logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> float:
    return float((logits.argmax(1) == labels).double().mean())
