"""The audit of an epoch: facts about predictions on target images, measured without target labels."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mutualign.data.types import Pixels, to_floats
from mutualign.evaluation.records import EpochAudit

CHUNK = 1 << 20  # about as many values of images are float64 at once: 8 MB
_SEPARATED: dict[bytes, float] = {}  # accuracies of random forests, by the SHA-256 of their data


class Teacher(NamedTuple):
    """Logits of a teacher and of its student for the same target images."""

    logits: Float[Tensor, "n classes"]
    student_logits: Float[Tensor, "n classes"]
    threshold: float  # the top probability from which the teacher's labels are used


def audit_predictions(
    logits: Float[Tensor, "n classes"],
    previous: Int64[Tensor, " n"] | None = None,
    teacher: Teacher | None = None,
) -> EpochAudit:
    """Measure an epoch's predictions on n target images; `previous` are the predictions of the epoch before.

    The fields for the teacher stay None without one. Gradients and reversal are not set here.
    """
    predicted, classes = logits.argmax(1), logits.shape[1]
    bins = (logits.softmax(1).amax(1) * 10).long().clamp(max=9)
    found = EpochAudit(
        predicted_shares=class_shares(predicted, classes),
        confidence_histogram=class_shares(bins, 10),
        drift=None if previous is None else _mean(predicted != previous),
    )
    if teacher is None:
        return found
    confident = teacher.logits.softmax(1).amax(1) >= teacher.threshold
    labels = teacher.logits.argmax(1)
    return replace(
        found,
        coverage=_mean(confident),
        pseudo_label_shares=class_shares(labels[confident], classes),
        teacher_agreement=_mean(labels == teacher.student_logits.argmax(1)),
    )


def class_shares(labels: Int64[Tensor, " n"], classes: int) -> list[float]:
    """Share of each class among labels; all 0 for no labels. Of source labels, this is the prior for the alarms."""
    counts = torch.bincount(labels, minlength=classes).double()
    return (counts / counts.sum().clamp(min=1)).tolist()


def domain_accuracy(source: Pixels, target: Pixels) -> float:
    """How well a classifier separates source from target images by their pixels: 0.5 is chance, 1 always.

    Out-of-bag accuracy of a random forest of 50 trees on the mean and the deviation of each cell of a 7x7 grid. It is
    remembered: a search trains on the same images again and again.
    """
    from sklearn.ensemble import RandomForestClassifier

    cells = torch.cat([_cells(source), _cells(target)]).numpy()
    is_source = torch.arange(len(cells)).numpy() < len(source)
    data = hashlib.sha256(cells.tobytes() + is_source.tobytes()).digest()
    if data not in _SEPARATED:
        forest = RandomForestClassifier(50, oob_score=True, random_state=0).fit(cells, is_source)
        _SEPARATED[data] = float(forest.oob_score_)
    return _SEPARATED[data]


def _cells(pixels: Pixels) -> Float64[Tensor, "n cells"]:
    """Mean and deviation of each cell of a 7x7 grid, by channel, of a few images at a time."""
    _, height, width, channels = pixels.shape
    grid = (min(7, height), min(7, width))
    # Filled in place: a small tensor kept between two large freed ones fragments the heap, by as much as all images.
    cells = torch.empty(len(pixels), 2, channels, *grid, dtype=torch.float64)
    at_once = 1 + CHUNK // pixels[0].numel()
    for start in range(0, len(pixels), at_once):
        some = slice(start, start + at_once)
        images = to_floats(pixels[some], channels).double()
        cells[some, 0] = mean = F.adaptive_avg_pool2d(images, grid)
        cells[some, 1] = (F.adaptive_avg_pool2d(images.square(), grid) - mean.square()).clamp_min(0).sqrt()
    return cells.flatten(1)


def _mean(flags: Tensor) -> float:
    return float(flags.double().mean())
