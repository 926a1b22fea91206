"""The error that a user can act on: it says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MutualignError(Exception):
    """Bad input or a bad environment, told in the user's terms; the command line prints it without a traceback."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """A clause that helps after a misspelled name: the nearest match, or else all that is allowed."""
    allowed = sorted(allowed)
    matches = difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    return f'did you mean "{matches[0]}"?' if matches else f"allowed: {', '.join(allowed) or 'nothing'}"
