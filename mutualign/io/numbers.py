"""Numbers as people read them."""

from __future__ import annotations


def percent(share: float | None, digits: int = 1) -> str:
    """Format a share for people, or `unknown` for None.

    >>> percent(0.956), percent(0.956, digits=0), percent(None)
    ('95.6 %', '96 %', 'unknown')
    """
    return "unknown" if share is None else f"{100 * share:.{digits}f} %"


def points(difference: float, digits: int = 1) -> str:
    """Format a difference of two shares in percentage points, with its sign.

    >>> points(0.021), points(-0.1, digits=0), points(-0.0001)
    ('+2.1', '-10', '+0.0')
    """
    return f"{round(100 * difference, digits) + 0.0:+.{digits}f}"  # + 0.0 turns -0.0 into 0.0
