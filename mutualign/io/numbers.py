"""Numbers as people read them."""

from __future__ import annotations


def percent(share: float | None, digits: int = 1) -> str:
    """Format a share for people, or `unknown` for None.

    >>> percent(0.956), percent(0.956, digits=0), percent(None)
    ('95.6 %', '96 %', 'unknown')
    """
    return "unknown" if share is None else f"{100 * share:.{digits}f} %"
