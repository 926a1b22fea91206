"""Evaluation: the only reader of target labels. Nothing here feeds back into training or selection."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor

from mutualign.data.images import LabelledImages, SealedImages


def source_accuracy(logits: Float[Tensor, "n classes"], images: LabelledImages) -> float:
    """The share of source images whose largest logit is the label's."""
    return _accuracy(logits, images.labels)


def target_accuracy(logits: Float[Tensor, "n classes"], images: SealedImages) -> float:
    """The share of target images whose largest logit is the sealed label's."""
    return _accuracy(logits, images.unseal())


class PseudoLabelQuality(NamedTuple):
    """Of a teacher's pseudo-labels on target training images."""

    coverage: float  # share of images with a top probability at the threshold or above
    precision: float  # share of those that have the right class; 0 where there are none


def pseudo_label_quality(
    logits: Float[Tensor, "n classes"], images: SealedImages, rows: Int64[Tensor, " n"], threshold: float
) -> PseudoLabelQuality:
    """Coverage and precision of the pseudo-labels that `logits` of the images at `rows` give."""
    confidence, predicted = logits.softmax(1).max(1)
    confident = confidence >= threshold
    right = (predicted == images.unseal()[rows]) & confident
    return PseudoLabelQuality(float(confident.double().mean()), float(right.sum() / confident.sum().clamp(min=1)))


def _accuracy(logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> float:
    return float((logits.argmax(1) == labels).double().mean())
