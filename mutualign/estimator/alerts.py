"""The warnings of a fit."""

from __future__ import annotations

import warnings


class NoTargetWarning(UserWarning):
    """No target was given, so there is nothing to adapt to."""


class AlarmWarning(UserWarning):
    """The audit of a fit raised an alarm: something to know before trusting the classifier."""


def warn_of_no_target(stacklevel: int) -> None:
    """Warn that a fit has no target; `stacklevel` leads to the caller of `fit`."""
    warnings.warn(
        "no target: the source is its own target, so nothing is adapted\n"
        "  hint:    fit(X_source, y_source, X_target), or fit(X, y, sample_domain=...) with target rows below 0",
        NoTargetWarning,
        stacklevel=stacklevel,
    )
