"""The verdict on a run: whether adaptation helped, compared with training on the source alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool
from scipy import special
from torch import Tensor

from mutualign.evaluation.discrepancy import bound_accuracy
from mutualign.evaluation.estimators import EstimatorInputs, RunOutputs
from mutualign.evaluation.estimators.confidence import average_thresholded_confidence

Kind = Literal["helped", "made it worse", "no difference", "cannot tell", "baseline"]
Basis = Literal["target labels", "no target labels"]
NEGLIGIBLE = 0.01  # of the target images: a gain that is certainly smaller counts as none


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

    The range is that of the mean of n paired differences in {-1, 0, 1}, with one image added to each kind of
    disagreement (Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005).
    """
    won, lost = (float((one & ~other).sum()) for one, other in ((right, reference), (reference, right)))
    n = len(right)
    difference, total = (won - lost) / n, n + 2
    centre, spread = (won - lost) / total, (won + lost + 1) / total
    half = float(special.ndtri(0.975)) * math.sqrt(max(spread - centre**2, 0.0) / total)
    return Range(difference, max(min(centre - half, difference), -1.0), min(max(centre + half, difference), 1.0))


@dataclass(frozen=True)
class Evidence:
    """What a verdict is decided by."""

    outputs: EstimatorInputs  # of the run
    baseline: EstimatorInputs | None  # of the fair source-only run; None if there is none
    compared_with: str | None = None  # the recipe of that run
    is_baseline: bool = False  # whether the run itself is a source-only run
    true_accuracy: float | None = None
    true_gain: Range | None = None


def judge(evidence: Evidence) -> Verdict:
    """Judge a run: by target labels if there are any, otherwise by what is certain without.

    Without labels the gain is the difference of two estimates. It is certain only that it is no larger than the share
    of target images that the two runs put into different classes.
    """
    ours, theirs = evidence.outputs, evidence.baseline
    accuracy = _estimate(ours)
    gain = None
    if theirs is not None:
        apart = float((ours.predicted != theirs.predicted).double().mean())
        gain = Range(min(max(accuracy - _estimate(theirs), -apart), apart), -apart, apart)
    decisive, basis = (evidence.true_gain, "target labels") if evidence.true_gain else (gain, "no target labels")
    if evidence.is_baseline:
        kind: Kind = "baseline"
    else:
        kind = kind_of_gain(decisive) if decisive else "cannot tell"
    bound = bound_accuracy(ours).accuracy
    return Verdict(
        kind,
        _sentence(kind, decisive, evidence, bound),
        basis,  # type: ignore[arg-type]
        accuracy,
        "average_thresholded_confidence",
        bound,
        gain,
        evidence.compared_with,
        evidence.true_accuracy,
        evidence.true_gain,
    )


def _estimate(outputs: EstimatorInputs) -> float:
    return average_thresholded_confidence(RunOutputs(outputs, "", 0, 0.0)).accuracy


def _sentence(kind: Kind, gain: Range | None, evidence: Evidence, bound: float) -> str:
    known = evidence.true_gain is not None
    if kind == "baseline":
        return "This run is trained on the source only: it is what adapted runs are compared with."
    if gain is None:
        return (
            "Cannot tell whether adaptation helped: there is no source-only run of the same network and length to "
            "compare with."
        )
    by = "by target labels" if known else "without target labels"
    numbers = f"{100 * gain.value:+.1f} points, {100 * gain.low:+.1f} to {100 * gain.high:+.1f}, {by}"
    if kind == "cannot tell":
        return f"Cannot tell whether adaptation helped: {numbers}."
    if kind == "no difference":
        return f"Adaptation made no difference ({numbers})."
    return f"Adaptation {kind} ({numbers})."
