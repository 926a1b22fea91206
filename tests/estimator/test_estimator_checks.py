"""scikit-learn's own checks of an estimator, on feature vectors and without a target; none is expected to fail."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from mutualign.estimator import DomainAdapter

SMALL = ("stages.0.epochs=1", "stages.0.epoch_steps=12", "stages.0.optim.lr=2e-2")
LEFT_OUT = {
    "check_array_api_input": "runs only where SCIPY_ARRAY_API was set before scipy's import, and is skipped elsewhere",
}


def checks():
    for estimator, check in estimator_checks_generator(DomainAdapter("source_only", overrides=SMALL)):
        if check.func.__name__ not in LEFT_OUT:
            how = "-".join(f"{key}={value}" for key, value in check.keywords.items())
            yield pytest.param(estimator, check, id=f"{check.func.__name__}-{how}".rstrip("-"))


@pytest.mark.filterwarnings("ignore::mutualign.estimator.NoTargetWarning")  # the checks know of no domains
@pytest.mark.filterwarnings("ignore::mutualign.estimator.AlarmWarning")  # and some are on noise
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learns_check_passes(estimator, check):
    check(estimator)
