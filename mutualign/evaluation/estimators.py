"""Estimation: the accuracy on target images that nobody has labelled, with an interval. Pure functions of logits.

Source labels take part, as they are given. Target labels cannot: `Outputs` has no place for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean
from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor

from mutualign.evaluation.validators import entropy


@dataclass(frozen=True)
class Outputs:
    """What a classifier gives for held-out source images and for the target images in question."""

    source_logits: Float[Tensor, "source classes"]
    source_labels: Int64[Tensor, " source"]
    target_logits: Float[Tensor, "target classes"]

    @property
    def predicted(self) -> Int64[Tensor, " target"]:
        return self.target_logits.argmax(1)


@dataclass(frozen=True)
class RunOutputs:
    """One of several runs on the same data: what it gives, what trained it, and its label-free score."""

    outputs: Outputs
    recipe: str
    seed: int
    score: float  # by a validator; higher is better


class Estimate(NamedTuple):
    """An estimated accuracy between 0 and 1, and the interval that should hold the true one in 95 of 100 cases."""

    accuracy: float
    low: float
    high: float


def average_thresholded_confidence(outputs: Outputs) -> Estimate:
    """The share of target images above the threshold that leaves out as many source images as are wrong (ATC).

    The score is the negative entropy of the softmax; the k lowest of n source scores are left out where k source
    predictions are wrong. The interval knows of the sampling of both sets of images, and of nothing else.
    Source: Garg et al., "Leveraging unlabeled data to predict out-of-distribution performance", ICLR 2022, eq. 2 and 3.
    """
    source, target = (_negative_entropy(logits) for logits in (outputs.source_logits, outputs.target_logits))
    wrong = int((outputs.source_logits.argmax(1) != outputs.source_labels).sum())
    if wrong == len(source):
        return _with_sampling(0.0, len(target), len(source))
    threshold = source.sort().values[wrong]
    return _with_sampling(float((target >= threshold).double().mean()), len(target), len(source))


def difference_of_confidences(outputs: Outputs) -> Estimate:
    """Source accuracy less what mean top probability falls by from source to target, within [0, 1] (DoC).

    The interval knows of the sampling of both sets of images, and of nothing else. Source: Guillory et al.,
    "Predicting with confidence on unseen distributions", ICCV 2021, section 3.
    """
    source, target = (
        float(logits.double().softmax(1).amax(1).mean()) for logits in (outputs.source_logits, outputs.target_logits)
    )
    right = float((outputs.source_logits.argmax(1) == outputs.source_labels).double().mean())
    accuracy = min(max(right - (source - target), 0.0), 1.0)
    return _with_sampling(accuracy, len(outputs.target_logits), len(outputs.source_logits))


def disagreement(runs: Sequence[RunOutputs]) -> Estimate | None:
    """1 less the mean disagreement of the predictions of runs with different seeds, over all pairs (GDE).

    One number for all of the runs, which should be of one recipe; None for fewer than two seeds. The interval knows of
    the sampling of the target images and of the spread over pairs. Source: Jiang et al., "Assessing generalization of
    SGD via disagreement", ICLR 2022.
    """
    agreed = [agreement(a, b) for a, b in combinations(runs, 2) if a.seed != b.seed]
    if not agreed:
        return None
    accuracy, n = mean(agreed), len(runs[0].outputs.target_logits)
    spread = 1.96 * math.sqrt(mean((value - accuracy) ** 2 for value in agreed) / len(agreed))
    return _within(accuracy, _sampling(accuracy, n) + spread)


def consensus(run: RunOutputs, runs: Sequence[RunOutputs]) -> Estimate | None:
    """How often a run agrees with the runs of other seeds of the recipe that scores best without labels.

    For a run of that recipe this is GDE, for one of another recipe the proxy risk of Chuang et al. ("Estimating
    generalization under distribution shifts via domain-invariant representations", ICML 2020). A model that is wrong
    in a share e of the images disagrees with another one in a share that is at most e away from the other's error (the
    triangle inequality), so the interval is e wide to either side, plus the sampling of the target images; e itself is
    estimated by GDE. None if that recipe has fewer than two seeds. What all its seeds get wrong alike is not seen.
    """
    best = best_recipe(runs)
    peers = [other for other in runs if other.recipe == best]
    references = [other for other in peers if other.seed != run.seed]
    among = disagreement(peers)
    if not references or among is None:
        return None
    accuracy = mean(agreement(run, reference) for reference in references)
    return _within(accuracy, 1 - among.accuracy + _sampling(accuracy, len(run.outputs.target_logits)))


def best_recipe(runs: Sequence[RunOutputs]) -> str:
    """The recipe with the highest mean label-free score; of equal ones the first."""
    scores: dict[str, list[float]] = {}
    for other in runs:
        scores.setdefault(other.recipe, []).append(other.score)
    return max(scores, key=lambda recipe: mean(scores[recipe]))


def estimates(run: RunOutputs, runs: Sequence[RunOutputs]) -> Mapping[str, Estimate | None]:
    """Every estimator's estimate for a run, given all runs on the same data, itself among them; the default first."""
    return {
        "consensus": consensus(run, runs),
        "disagreement": disagreement([other for other in runs if other.recipe == run.recipe]),
        "average_thresholded_confidence": average_thresholded_confidence(run.outputs),
        "difference_of_confidences": difference_of_confidences(run.outputs),
    }


def agreement(a: RunOutputs, b: RunOutputs) -> float:
    """The share of target images that two runs put into the same class."""
    return float((a.outputs.predicted == b.outputs.predicted).double().mean())


def _negative_entropy(logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    return -entropy(logits.double().softmax(1))


def _with_sampling(accuracy: float, target: int, source: int) -> Estimate:
    half_width = math.hypot(_sampling(accuracy, target), _sampling(accuracy, source))
    return _within(accuracy, half_width)


def _sampling(accuracy: float, images: int) -> float:
    """Half the width of the 95 % interval of a share that was counted on so many images (Agresti and Coull, 1998)."""
    adjusted = (accuracy * images + 2) / (images + 4)
    return 1.96 * math.sqrt(adjusted * (1 - adjusted) / (images + 4))


def _within(accuracy: float, half_width: float) -> Estimate:
    return Estimate(accuracy, max(accuracy - half_width, 0.0), min(accuracy + half_width, 1.0))
