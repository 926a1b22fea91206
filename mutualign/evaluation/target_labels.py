"""Comparison with true labels: the only reader of target labels. Nothing here feeds back into training or selection."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mutualign.data.types import LabelledImages, TargetDataset
from mutualign.errors import MutualignError
from mutualign.evaluation.records import PseudoLabelQuality


def source_accuracy(logits: Float[Tensor, "n classes"], images: LabelledImages) -> float:
    """Share of source images whose largest logit is the label's."""
    return _accuracy(logits, images.labels)


def target_accuracy(logits: Float[Tensor, "n classes"], images: TargetDataset) -> float | None:
    """Share of target images whose largest logit is the label's; None without labels.

    Raises MutualignError for a label that is not one of the classes.
    """
    labels = _labels(images, logits.shape[1])
    return None if labels is None else _accuracy(logits, labels)


def pseudo_label_quality(
    logits: Float[Tensor, "n classes"], images: TargetDataset, rows: Int64[Tensor, " n"], threshold: float
) -> PseudoLabelQuality:
    """Coverage and precision of pseudo-labels: the most likely class of each image that reaches the threshold.

    `rows` are the positions in `images` that the logits belong to. Raises MutualignError as `target_accuracy` does.
    """
    confidence, predicted = logits.softmax(1).max(1)
    confident = confidence >= threshold
    coverage, labels = float(confident.double().mean()), _labels(images, logits.shape[1])
    if labels is None:
        return PseudoLabelQuality(coverage, None)
    right = (predicted == labels[rows]) & confident
    return PseudoLabelQuality(coverage, float(right.sum() / confident.sum().clamp(min=1)))


GALLERIES = ("confident_right", "confident_wrong", "least_confident")
BINS = 10  # of the reliability diagram


def review(
    logits: Float[Tensor, "n classes"], images: TargetDataset, rows: Int64[Tensor, " n"], gallery: int
) -> dict[str, Tensor]:
    """Compare logits with the true labels, for the report; `rows` are the positions of the n images.

    labels           [n]
    confusion        [classes, classes], counts by true class (rows) and predicted class (columns)
    reliability      [10, 3]: for each tenth of top probability, the number of images, their mean top probability, and
                     their accuracy
    confident_right, confident_wrong, least_confident
                     positions in `logits` of up to `gallery` images: the most confident right and wrong predictions,
                     and the least confident ones

    Without labels, only `least_confident`. Raises MutualignError for a label that is not one of the classes.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    surest = confidence.argsort(descending=True, stable=True)
    least_confident = surest.flip(0)[:gallery]
    classes = logits.shape[1]
    found = _labels(images, classes)
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


def _labels(images: TargetDataset, classes: int) -> Int64[Tensor, " n"] | None:
    labels = images.reveal_labels()
    if labels is not None and (beyond := labels[(labels < 0) | (labels >= classes)]).numel():
        raise MutualignError(
            f"target labels: found the class number {int(beyond[0])}; there are {classes} classes, 0 to {classes - 1}\n"
            "  hint:    leave images of other classes out, or give no target labels"
        )
    return labels


def _accuracy(logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> float:
    return float((logits.argmax(1) == labels).double().mean())
