"""Benchmarks with one folder per domain: Office-31, Office-Home, PACS, VisDA, DomainNet, or your own."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from mutualign.data.folders.hidden import is_hidden
from mutualign.errors import MutualignError, nearest

IMAGES = "images"  # Office-31 as published has DOMAIN/images/CLASS


class DomainPair(NamedTuple):
    """The folders of class folders of a source and a target domain."""

    source: Path
    target: Path


def domains(root: Path) -> dict[str, Path]:
    """Return the folder of class folders of each domain, by name. Raises MutualignError for fewer than two."""
    if not root.is_dir():
        raise MutualignError(f"{root}: no such folder\n  hint:    give the folder that has one folder per domain")
    found = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name)):
        inner = folder / IMAGES
        found[folder.name] = inner if inner.is_dir() else folder
    if len(found) < 2:
        raise MutualignError(f"{root}: {len(found)} folder(s); expected one per domain, {root}/DOMAIN/CLASS/image.jpg")
    return found


def domain_pairs(root: Path) -> list[str]:
    """Return `SOURCE-TARGET` for all ordered pairs of domains."""
    return [f"{source}-{target}" for source, target in permutations(domains(root), 2)]


def find_pair(root: Path, pair: str) -> DomainPair:
    """Return where the two domains of a pair `SOURCE-TARGET` are.

    Raises MutualignError for an unknown domain, naming the nearest.
    """
    found = domains(root)
    if "-" not in pair:
        raise MutualignError(f'{root}: expected SOURCE-TARGET, got "{pair}"; domains: {", ".join(found)}')
    parts = [(pair[:place], pair[place + 1 :]) for place, letter in enumerate(pair) if letter == "-"]
    known = [(source, target) for source, target in parts if source in found and target in found]
    if not known:
        unknown = next((name for name in parts[0] if name not in found), pair)
        raise MutualignError(f'{root}: unknown domain "{unknown}"; {nearest(unknown, found)}')
    source, target = known[0]
    if source == target:
        raise MutualignError(f'{root}: source and target are both "{source}"')
    return DomainPair(found[source], found[target])
