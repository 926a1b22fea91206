"""MutualignError, the error that a user can act on, and the phrases that errors share."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable

LIKELY = 0.65  # similarity from which a name counts as a misspelling; "resnet18" and "small_resnet" have 0.6


class MutualignError(Exception):
    """Bad input or a bad environment; the command line prints it without a traceback."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Suggest what a misspelled name may mean: names that start with it, else the most similar one, else all.

    >>> nearest("digitz", ["digits", "mnist-mnistm", "mnist-worn"])
    'did you mean "digits"?'
    >>> nearest("mnist", ["digits", "mnist-mnistm", "mnist-worn"])
    'did you mean "mnist-mnistm" or "mnist-worn"?'
    >>> nearest("resnet18", ["mlp", "small_resnet"])
    'allowed: mlp, small_resnet'
    """
    names, start = sorted(allowed), word.casefold()
    matches = [name for name in names if start and name.casefold().startswith(start)]
    if not matches:
        folded = {name.casefold(): name for name in names}
        matches = [folded[key] for key in difflib.get_close_matches(start, folded, n=1, cutoff=LIKELY)]
    if matches:
        return "did you mean " + " or ".join(f'"{name}"' for name in matches) + "?"
    return f"allowed: {', '.join(names) or 'nothing'}"


def shell_command(*words: object) -> str:
    """Join words to a command that can be pasted into a shell: words with blanks or special characters are quoted.

    >>> shell_command("mutualign", "show", "my runs/first")
    "mutualign show 'my runs/first'"
    """
    return shlex.join(map(str, words))
