"""Estimators from the confidence of a single run."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from mutualign.evaluation.estimators.base import Estimate, RunOutputs, register_estimator, sampled
from mutualign.evaluation.validators import entropy


@register_estimator("average_thresholded_confidence")
def average_thresholded_confidence(run: RunOutputs, runs: Sequence[RunOutputs] = ()) -> Estimate:
    """Share of target images whose confidence exceeds a threshold that is set on the source (ATC).

    Confidence is the negative entropy of the softmax. The threshold is chosen so that the share of source images below
    it equals the source error: with k wrong source predictions, it is the (k + 1)-th lowest source confidence. If
    several source images have exactly this confidence, as many of them count as below it as that takes, and the same
    share of such target images. If every source prediction is wrong, the estimate is 0. The range covers the sampling
    of both sets of images only, not the error of the method.
    Source: Garg et al., "Leveraging unlabeled data to predict out-of-distribution performance", ICLR 2022, eq. 2 and 3.
    The authors' code takes the k-th lowest, which differs by one source image; this follows the equation. It also
    scales the logits by a temperature that is fitted on the source, which is not done here.
    """
    source, target = (_negative_entropy(logits) for logits in (run.source_logits, run.target_logits))
    wrong = int((run.source_logits.argmax(1) != run.source_labels).sum())
    if wrong == len(source):
        return sampled(run, 0.0)
    threshold = source.sort().values[wrong]
    below, equal = int((source < threshold).sum()), int((source == threshold).sum())
    kept = 1 - (wrong - below) / equal  # of the images with the threshold's confidence; 1 if there is one such image
    above, there = (float(flags.double().mean()) for flags in (target > threshold, target == threshold))
    return sampled(run, above + kept * there)


@register_estimator("difference_of_confidences")
def difference_of_confidences(run: RunOutputs, runs: Sequence[RunOutputs] = ()) -> Estimate:
    """Source accuracy minus the fall of the mean top probability from source to target, within [0, 1] (DoC).

    The range covers the sampling of both sets of images only, not the error of the method. The logits are not scaled by
    a temperature. Source: Guillory et al., "Predicting with confidence on unseen distributions", ICCV 2021, section 3.
    """
    source, target = (
        float(logits.double().softmax(1).amax(1).mean()) for logits in (run.source_logits, run.target_logits)
    )
    return sampled(run, min(max(run.source_accuracy - (source - target), 0.0), 1.0))


def _negative_entropy(logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    return -entropy(logits.double().softmax(1))
