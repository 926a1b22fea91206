"""Estimators: the accuracy on unlabelled target images. Importing this package registers every file in it.

An estimator is a pure function of logits. It may use source labels; it cannot use target labels, since
`EstimatorInputs` does not contain them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules

from mutualign.evaluation.estimators.base import (
    ESTIMATORS,
    Estimate,
    Estimator,
    EstimatorInputs,
    RunOutputs,
    register_estimator,
)

for _name in ("agreement", "confidence", *(module.name for module in iter_modules(__path__))):
    import_module(f"{__name__}.{_name}")  # the most trusted first


def estimates(run: RunOutputs, runs: Sequence[RunOutputs]) -> Mapping[str, Estimate | None]:
    """Compute every estimate for a run, the most trusted first; `runs` are all runs on the same data, `run` included.

    An estimate is None if its estimator needs more runs.
    """
    return {name: estimator(run, runs) for name, estimator in ESTIMATORS.items()}


__all__ = [
    "ESTIMATORS",
    "Estimate",
    "Estimator",
    "EstimatorInputs",
    "RunOutputs",
    "estimates",
    "register_estimator",
]
