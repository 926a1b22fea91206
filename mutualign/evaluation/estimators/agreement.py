"""Estimators from the agreement of independent runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import mean

from mutualign.evaluation.estimators.base import Estimate, RunOutputs, register_estimator, sampling_error, within


@register_estimator("consensus")
def consensus(run: RunOutputs, runs: Sequence[RunOutputs]) -> Estimate | None:
    """Agreement of a run with the runs of other seeds of the recipe that scores best without labels.

    For a run of that recipe this is GDE; for a run of another recipe it is like the proxy risk of Chuang et al., with
    the mean over seeds instead of the largest disagreement of models that are trained to disagree. By the triangle
    inequality, agreement with a reference differs from accuracy by at most the reference's error e, so the range is e
    to either side, plus the sampling error of the target images. e itself is estimated by GDE, so the range is not a
    confidence interval: errors that all seeds share are invisible. None if that recipe has fewer than two seeds, or no
    seed other than the run's.
    Source: adapted from Chuang et al., "Estimating generalization under distribution shifts via domain-invariant
    representations", ICML 2020.
    """
    best = best_recipe(runs)
    peers = [other for other in runs if other.recipe == best]
    references = [other for other in peers if other.seed != run.seed]
    among = mean_agreement(peers)
    if not references or among is None:
        return None
    accuracy = mean(agreement(run, reference) for reference in references)
    return within(accuracy, 1 - among.accuracy + sampling_error(accuracy, len(run.target_logits)))


@register_estimator("disagreement")
def disagreement(run: RunOutputs, runs: Sequence[RunOutputs]) -> Estimate | None:
    """Mean agreement between seeds of the run's recipe, over all pairs (GDE); the same for all of them.

    None for fewer than two seeds. The range covers the sampling of the target images and the spread over pairs, as
    if these were independent: with three seeds it is too narrow.
    Source: Jiang et al., "Assessing generalization of SGD via disagreement", ICLR 2022.
    """
    return mean_agreement([other for other in runs if other.recipe == run.recipe])


def mean_agreement(runs: Sequence[RunOutputs]) -> Estimate | None:
    """Mean agreement over all pairs of runs with different seeds; None without such a pair."""
    agreed = [agreement(a, b) for a, b in combinations(runs, 2) if a.seed != b.seed]
    if not agreed:
        return None
    accuracy, n = mean(agreed), len(runs[0].target_logits)
    spread = 1.96 * math.sqrt(mean((value - accuracy) ** 2 for value in agreed) / len(agreed))
    return within(accuracy, sampling_error(accuracy, n) + spread)


def agreement(a: RunOutputs, b: RunOutputs) -> float:
    """Share of target images that two runs put into the same class."""
    return float((a.predicted == b.predicted).double().mean())


def best_recipe(runs: Sequence[RunOutputs]) -> str:
    """The recipe with the highest mean label-free score; the first of equal ones."""
    scores: dict[str, list[float]] = {}
    for run in runs:
        scores.setdefault(run.recipe, []).append(run.score)
    return max(scores, key=lambda recipe: mean(scores[recipe]))
