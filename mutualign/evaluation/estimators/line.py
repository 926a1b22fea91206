"""Estimators from a line: agreement of pairs of runs on the target, as a function of that on the source."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from mutualign.evaluation.estimators.base import Estimate, RunOutputs, register_estimator, sampled

LOWEST, HIGHEST = 0.05, 0.98  # agreements that are used; beyond, a few images decide their probits

Floats = NDArray[np.float64]


class Line(NamedTuple):
    """Probit of the target agreement = slope x probit of the source agreement + bias, over pairs of runs."""

    slope: float
    bias: float
    solution: Floats  # probit of each run's accuracy by ALine-D; NaN where the pairs do not determine it


@register_estimator("aline_s")
def aline_s(run: RunOutputs, runs: Sequence[RunOutputs]) -> Estimate | None:
    """Target accuracy on the line of the agreements, at the run's source accuracy (ALine-S).

    Accuracy is supposed to lie on the same line as agreement, in probits. The range covers the sampling of both sets of
    images only, not the error of the method. None without two pairs of runs that agree on 5 to 98 % of the images of
    each domain, as in the authors' code, and differ in their source agreement. Source: Baek et al.,
    "Agreement-on-the-line: predicting the performance of neural networks under distribution shift", NeurIPS 2022.
    """
    line = fit_line(runs)
    return None if line is None else _estimate(run, line.slope * _source_accuracy(run) + line.bias)


@register_estimator("aline_d")
def aline_d(run: RunOutputs, runs: Sequence[RunOutputs]) -> Estimate | None:
    """Target accuracy by least squares over pairs: a pair's mean accuracy differs from its agreement as on the source.

    In probits: (a_i + a_j) / 2 = agreement on the target + slope x ((source accuracy of i + that of j) / 2 - agreement
    on the source), with the slope of ALine-S, for every pair. None as for ALine-S, and if the pairs do not determine
    the run's accuracy, which takes three runs. Range as for ALine-S. Source: Baek et al., NeurIPS 2022, as for ALine-S,
    algorithm 1.
    """
    line = fit_line(runs)
    if line is None:
        return None
    probit = next(probit for probit, other in zip(line.solution, runs, strict=True) if other is run)
    return None if np.isnan(probit) else _estimate(run, probit)


def fit_line(runs: Sequence[RunOutputs]) -> Line | None:
    """Fit the line by least squares; None if it is not determined."""
    return _fit(tuple(runs))


@lru_cache(maxsize=1)  # the same runs are asked about one by one, and there may be thousands of pairs
def _fit(runs: tuple[RunOutputs, ...]) -> Line | None:
    source = np.stack([run.source_logits.argmax(1).numpy().astype(np.int16) for run in runs])
    target = np.stack([run.predicted.numpy().astype(np.int16) for run in runs])
    pairs = np.stack(np.triu_indices(len(runs), 1), axis=1)
    agreed = [
        np.concatenate([(rows[at] == rows[at + 1 :]).mean(1) for at in range(len(rows))]) for rows in (source, target)
    ]
    used = np.all([(values >= LOWEST) & (values <= HIGHEST) for values in agreed], axis=0)
    x, y = (scipy.special.ndtri(values[used]) for values in agreed)
    if len(x) < 2 or np.ptp(x) < 1e-9:
        return None
    slope, bias = np.polyfit(x, y, 1)
    pairs, accuracy = pairs[used], np.array([_source_accuracy(run) for run in runs])
    means = y + slope * (accuracy[pairs].mean(1) - x)
    return Line(float(slope), float(bias), _solve(pairs, means, len(runs)))


def _solve(pairs: NDArray[np.int64], means: Floats, runs: int) -> Floats:
    """Least squares for the value of each run, given the mean of each pair; NaN where the pairs do not determine it."""
    halves = np.zeros((len(pairs), runs))
    np.put_along_axis(halves, pairs, 0.5, axis=1)
    inverse = np.linalg.pinv(halves)
    determined = np.abs(np.diag(inverse @ halves) - 1) < 1e-6
    return np.where(determined, inverse @ means, np.nan)


def _source_accuracy(run: RunOutputs) -> float:
    """Probit of the source accuracy, which is kept half an image away from 0 and 1."""
    half = 0.5 / len(run.source_labels)
    return float(scipy.special.ndtri(min(max(run.source_accuracy, half), 1 - half)))


def _estimate(run: RunOutputs, probit: float) -> Estimate:
    return sampled(run, float(scipy.special.ndtr(probit)))
