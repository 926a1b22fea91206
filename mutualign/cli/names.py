"""Names of recipes and registered things for help texts, read from the package's files without importing torch."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import mutualign

PACKAGE = Path(mutualign.__file__).parent
REGISTERED = re.compile(r'^@?register_(\w+)\(\s*"([^"]+)"', re.MULTILINE)


def recipe_names() -> list[str]:
    """Return the names of the package's recipes."""
    return sorted(path.stem for path in (PACKAGE / "recipes").glob("*.toml"))


def registered(kind: str) -> list[str]:
    """Return the names that the package's files register with `@register_KIND("name")`, such as `backbone`.

    Importing the registries themselves takes seconds, because they import torch.
    """
    return sorted(_all_registered().get(kind, ()))


@cache
def _all_registered() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for kind, name in REGISTERED.findall(path.read_text(encoding="utf-8")):
            found.setdefault(kind, []).append(name)
    return found
