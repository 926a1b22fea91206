"""Names of classes: cleaned when they are read, and compared by what they mean."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from mutualign.errors import MutualignError, nearest

_WHOLE = re.compile(r"(-?\d+)\.0+")  # how tables with empty cells write whole numbers


def clean_name(name: str) -> str:
    r"""Remove blanks around a name and compose its accents (Unicode NFC); macOS writes file names decomposed.

    >>> clean_name(" cafe\u0301 ") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name.strip())


def name_key(name: str) -> str:
    """Return what a name is compared by: "3.0" is the class "3".

    >>> name_key("3.0"), name_key("v3.0")
    ('3', 'v3.0')
    """
    match = _WHOLE.fullmatch(name)
    return match[1] if match else name


def refuse_alike(names: Iterable[str], where: object) -> None:
    """Raise MutualignError if two names mean the same class."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(name_key(name), name)
        if other != name:
            raise MutualignError(
                f'{where}: the classes "{other}" and "{name}" are the same number\n'
                "  hint:    write one of them in all rows or folders"
            )


def class_indices(labels: Sequence[str], names: Sequence[str], where: object) -> list[int]:
    """Return the position of each label in `names`. Raises MutualignError for a label that is not among them."""
    places = {name_key(name): place for place, name in enumerate(names)}
    keys = {label: name_key(label) for label in labels}
    unknown = sorted(label for label, key in keys.items() if key not in places)
    if unknown:
        raise MutualignError(
            f'{where}: class "{unknown[0]}" is not among the source\'s; {nearest(unknown[0], names)}\n'
            "  hint:    rename it, leave it out, or add labelled source images of it"
        )
    return [places[keys[label]] for label in labels]
