"""What is measured at the end of an epoch, as types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Alarm:
    """Something to know before trusting a run: its name, what was measured, and the likely cause."""

    name: str
    seen: str
    cause: str


@dataclass(frozen=True)
class PseudoLabelQuality:
    """Pseudo-labels on target training images, compared with the true labels."""

    coverage: float  # share of images whose top probability reaches the threshold
    precision: float | None  # share of those with the right class; 0 if there are none, None without target labels


@dataclass(frozen=True)
class EpochAudit:
    """What the audit measures of an epoch without target labels."""

    predicted_shares: list[float]  # of each class among the predictions on target images
    confidence_histogram: list[float]  # shares of images by top probability, ten bins from 0 to 1
    same_within_classes: float | None = None  # p-value that the domains differ in class frequencies only
    estimated_shares: list[float] | None = None  # of the true classes in the target, if they do
    drift: float | None = None  # share of predictions that differ from the previous epoch's
    coverage: float | None = None  # share of images that the pseudo-labeller labels
    pseudo_label_shares: list[float] | None = None  # of each class among those labels
    teacher_agreement: float | None = None  # share of images that teacher and student put into the same class
    teacher_fingerprint: float | None = None  # changes if any weight of the teacher does
    gradients: dict[str, float] = field(default_factory=dict)  # at the features, by loss, weighted as at the end
    reversal: float | None = None  # cosine of the domain gradient before and after the reversal: -1 if it works


@dataclass(frozen=True)
class EpochRecord:
    """One line of metrics.jsonl."""

    stage: int  # from 0
    epoch: int  # within the stage, from 1
    method: str
    train_seconds: float  # of the stage so far
    means: dict[str, float]  # of losses and metrics over the epoch's steps; without those that are not finite
    scores: dict[str, float]  # by validator; likewise
    source_accuracy: float
    target_accuracy: float | None  # None without target labels
    audit: EpochAudit
    pseudo_labels: PseudoLabelQuality | None = None


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Leave out what is not a finite number, which JSON cannot express.

    A metric of a user's method, such as a mean over no images, may be NaN.

    >>> finite({"coverage": 0.5, "precision": math.nan})
    {'coverage': 0.5}
    """
    return {name: value for name, value in values.items() if math.isfinite(value)}
