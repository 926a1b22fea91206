"""Exact limits of a share that is counted (Clopper-Pearson): they hold for every number of images."""

from __future__ import annotations

import scipy


def upper_limit(count: int | float, total: int, miss: float) -> float:
    """Return the upper limit of a share; the true one is above it with probability `miss` at most.

    `count` may be a sum of shares, of groups that count once each; the limit is approximate then.

    >>> round(upper_limit(0, 100, 0.05), 3)  # the rule of three
    0.03
    """
    return 1.0 if count >= total else float(scipy.special.betaincinv(count + 1, total - count, 1 - miss))


def lower_limit(count: int | float, total: int, miss: float) -> float:
    """Return the lower limit of a share; the true one is below it with probability `miss` at most."""
    return 1 - upper_limit(total - count, total, miss)
