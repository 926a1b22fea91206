"""The verdict on a run: whether adaptation helped, compared with training on the source alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import scipy
from jaxtyping import Bool
from torch import Tensor

from mutualign.evaluation.discrepancy import bound_accuracy
from mutualign.evaluation.estimators import EstimatorInputs, RunOutputs
from mutualign.evaluation.estimators.confidence import average_thresholded_confidence
from mutualign.io.numbers import percent, points

Kind = Literal["helped", "made it worse", "no difference", "cannot tell", "baseline"]
Headline = Kind | Literal["not compared", "source not learnt"]
Basis = Literal["target labels", "no target labels"]
LEARNT = 0.1  # of the way from guessing to always right, on held-out source images
NEGLIGIBLE = 0.01  # of the target images: a gain that is certainly smaller counts as none
BOUND_SIGN, CONSISTENCY_SIGN = 0.05, 0.02  # changes that together are a sign; smaller ones say nothing


@dataclass(frozen=True)
class Range:
    """A value, and the lowest and highest that the evidence allows."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """What a reader should know first. Accuracies and gains are shares between -1 and 1; gain is over source only.

    kind            helped, made it worse, no difference, cannot tell; baseline for a source-only run
    sentence        the same in one plain sentence, with numbers
    basis           whether the kind was decided with target labels, or by evidence without
    accuracy        estimated target accuracy without labels, by `estimator`
    lower_bound     of the target accuracy without labels, at 95 % confidence under the assumption of the bound
    gain            estimated without labels over the source-only run `compared_with`
    true_accuracy, true_gain
                    from target test labels, where there are any; the range of the gain is for the finite sample
    source_learnt   whether the source is classified clearly better than by guessing, if the last stage trains on it
    """

    kind: Kind
    sentence: str
    basis: Basis
    accuracy: float | None = None
    estimator: str | None = None
    lower_bound: float | None = None
    gain: Range | None = None
    compared_with: str | None = None
    true_accuracy: float | None = None
    true_gain: Range | None = None
    source_learnt: bool = True

    @property
    def headline(self) -> Headline:
        """The verdict in a word: the kind, unless there is nothing to read because the source is not learnt.

        What cannot be told because there is nothing to compare with says nothing about the data: `not compared`.
        """
        return _headline(self.kind, self.source_learnt, self.compared_with)


def source_is_learnt(accuracy: float, guessing: float) -> bool:
    """Whether an accuracy on held-out source images is above that of always predicting the commonest class."""
    return accuracy > guessing + LEARNT * (1 - guessing)


def kind_of_gain(gain: Range) -> Kind:
    """Return what a range of gains says: a sign if all of it has one, `no difference` if all of it is negligible."""
    if gain.low >= -NEGLIGIBLE and gain.high <= NEGLIGIBLE:
        return "no difference"
    if gain.low > 0:
        return "helped"
    if gain.high < 0:
        return "made it worse"
    return "cannot tell"


def paired_gain(right: Bool[Tensor, " n"], reference: Bool[Tensor, " n"]) -> Range:
    """Return the difference of two accuracies on the same images, with its 95 % range.

    The range is that of the mean of n paired differences in {-1, 0, 1}, with half an image added to each of
    the four outcomes (Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005).
    """
    won, lost = (float((one & ~other).sum()) for one, other in ((right, reference), (reference, right)))
    n = len(right)
    difference, total = (won - lost) / n, n + 2
    centre, spread = (won - lost) / total, (won + lost + 1) / total
    half = float(scipy.special.ndtri(0.975)) * math.sqrt(max(spread - centre**2, 0.0) / total)
    return Range(difference, max(min(centre - half, difference), -1.0), min(max(centre + half, difference), 1.0))


@dataclass(frozen=True)
class Evidence:
    """What a verdict is decided by."""

    run: RunOutputs
    baseline: RunOutputs | None  # the fair source-only run; None if there is none
    compared_with: str | None = None  # the recipe of that run
    is_baseline: bool = False  # whether the run itself is a source-only run
    trains_on_source: bool = True  # whether its last stage does; another one may forget the source
    true_accuracy: float | None = None
    true_gain: Range | None = None


def judge(evidence: Evidence) -> Verdict:
    """Judge a run: by target labels if there are any, otherwise by evidence without (`kind_without_labels`).

    Without labels, the gain is the difference of the two bounds. It is certain only that it is no larger than the share
    of target images that the two runs put into different classes.
    """
    ours, theirs = evidence.run, evidence.baseline
    bound, gain = bound_accuracy(ours), None
    kind: Kind = "cannot tell"
    if theirs is not None:
        rise = bound - bound_accuracy(theirs)
        apart = float((ours.predicted != theirs.predicted).double().mean())
        gain = Range(min(max(rise, -apart), apart), -apart, apart)
        kind = kind_without_labels(apart, rise, _rise(ours.consistency, theirs.consistency))
    if evidence.true_gain is not None:
        kind = kind_of_gain(evidence.true_gain)
    if evidence.is_baseline:
        kind = "baseline"
    source = ours.source_accuracy
    learnt = not evidence.trains_on_source or source_is_learnt(source, _guessing(ours))
    readable = _headline(kind, learnt, evidence.compared_with) != "source not learnt"
    return Verdict(
        kind,
        _sentence(kind, gain, evidence.true_gain) if readable else _not_learnt(source),
        "no target labels" if evidence.true_gain is None else "target labels",
        average_thresholded_confidence(ours).accuracy,
        "average_thresholded_confidence",
        bound,
        gain,
        evidence.compared_with,
        evidence.true_accuracy,
        evidence.true_gain,
        learnt,
    )


def kind_without_labels(apart: float, bound: float, consistency: float | None) -> Kind:
    """Return what two signs say together; neither rewards predictions that spread over the classes.

    apart         share of target images that the run and its baseline put into different classes
    bound         rise of the lower bound of the accuracy, over the baseline
    consistency   rise of the share of target images that keep their predicted class when they are slightly changed

    The thresholds were chosen on half of the tasks of the blind test; results/blind.json has how they do on the others.
    """
    if apart <= NEGLIGIBLE:
        return "no difference"
    if consistency is None or bound * consistency <= 0:
        return "cannot tell"
    if abs(bound) < BOUND_SIGN or abs(consistency) < CONSISTENCY_SIGN:
        return "cannot tell"
    return "helped" if bound > 0 else "made it worse"


def _rise(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def _headline(kind: Kind, source_learnt: bool, compared_with: str | None) -> Headline:
    if not source_learnt and kind not in ("helped", "made it worse"):
        return "source not learnt"
    return "not compared" if kind == "cannot tell" and compared_with is None else kind


def _guessing(outputs: EstimatorInputs) -> float:
    """The accuracy on the source of always predicting its commonest class."""
    return float(outputs.source_labels.bincount().max()) / len(outputs.source_labels)


def _not_learnt(accuracy: float) -> str:
    return (
        f"The source is not learnt, so nothing else can be read: {percent(accuracy)} of held-out source images are "
        "right."
    )


def _sentence(kind: Kind, gain: Range | None, true: Range | None) -> str:
    if kind == "baseline":
        return "This run is trained on the source only: it is what adapted runs are compared with."
    if gain is None:
        return (
            "There is no source-only run of the same network and epochs to compare with, and without one nothing says "
            "whether adaptation helped; `mutualign compare` trains one."
        )
    if true is not None:
        numbers = f"{points(true.value)} points over source only ({points(true.low)} to {points(true.high)})"
        return {
            "helped": f"Adaptation helped, by target labels: {numbers}.",
            "made it worse": f"Adaptation made it worse, by target labels: {numbers}.",
            "no difference": f"Adaptation made no difference, by target labels: {numbers}.",
        }.get(kind, f"Cannot tell whether adaptation helped; the target labels are too few: {numbers}.")
    about = f"about {points(gain.value, 0)} points over source only, estimated without target labels"
    return {
        "helped": f"Adaptation probably helped: {about}.",
        "made it worse": f"Adaptation probably made it worse: {about}.",
        "no difference": "Adaptation made no difference: it changes the class of "
        f"{percent(gain.high)} of the target images.",
    }.get(kind, "Cannot tell without target labels whether adaptation helped.")
