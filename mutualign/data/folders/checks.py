"""Checks of a user's images before training: copies, classes that contradict each other, and ranges of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import torch

from mutualign.data.folders.scan import Scan
from mutualign.data.types import UnlabelledImages, spread

MOST_CHECKED = 2000  # images of each part whose values are looked at
CHUNK = 64
DARK = 16  # of 255: the largest value of a 12-bit image that was saved with 16 bits
FACTOR = 4.0  # between the largest values of source and target, from which it is worth a note


def copies(scans: Mapping[str, Scan]) -> Iterator[str]:
    """Yield notes on images with the same SHA-256: in one part, in two classes, or in two parts.

    Target and target test may share images without a note: the test set is often the labelled part of the target.
    """
    for part, one in scans.items():
        first: dict[str, int] = {}
        pairs = [(first.setdefault(digest, row), row) for row, digest in enumerate(one.digests)]
        repeated = [(a, b) for a, b in pairs if a != b]
        paths, labels = one.listing.paths, one.listing.labels
        if repeated:
            a, b = repeated[0]
            yield f"{part}: {len(repeated):,} image(s) are copies of others, such as {paths[b]} of {paths[a]}"
        if labels and (clashes := [(a, b) for a, b in repeated if labels[a] != labels[b]]):
            a, b = clashes[0]
            yield (
                f"{part}: {len(clashes):,} image(s) are in two classes, such as {paths[b]}, which is "
                f'"{labels[a]}" and "{labels[b]}"'
            )
    for earlier, later in combinations(scans, 2):
        if (earlier, later) != ("target", "target test"):
            yield from _shared(earlier, later, scans)


def _shared(earlier: str, later: str, scans: Mapping[str, Scan]) -> Iterator[str]:
    first = dict(zip(scans[earlier].digests, scans[earlier].listing.paths, strict=True))
    later_paths = zip(scans[later].digests, scans[later].listing.paths, strict=True)
    if shared := [(path, first[digest]) for digest, path in later_paths if digest in first]:
        path, other = shared[0]
        yield f"{later}: {len(shared):,} image(s) are also in {earlier}, such as {path} as {other}"


def ranges(parts: Mapping[str, UnlabelledImages]) -> Iterator[str]:
    """Yield notes on images of uint8 that do not use their range, and on a source and target of different ranges.

    At most 2,000 images of each part, evenly spread, are looked at.
    """
    typical = {}
    for part, images in parts.items():
        largest = _largest_values(images)
        checked = f"of {len(largest):,} images" + (" looked at" if len(largest) < len(images) else "")
        if masks := int((largest == 1).sum()):
            yield f"{part}: {masks:,} {checked} have only the values 0 and 1 of 255; images in 0..1 look black"
        if dark := int(((largest > 1) & (largest <= DARK)).sum()):
            yield (
                f"{part}: {dark:,} {checked} have no value above {DARK} of 255; 12-bit images saved with 16 bits are "
                "such: multiply them by 16"
            )
        typical[part] = int(largest.median())
    low, high = sorted([typical["source"], typical["target"]])
    if high >= FACTOR * max(low, 1):
        yield (
            f"source and target differ in range: the largest value of a typical image is {typical['source']} in source "
            f"and {typical['target']} in target, of 255"
        )


def _largest_values(images: UnlabelledImages) -> torch.Tensor:
    rows = spread(len(images), MOST_CHECKED)
    return torch.cat([images.take(chunk, 0).flatten(1).amax(1) for chunk in torch.split(rows, CHUNK)])
