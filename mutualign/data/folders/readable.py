"""The images of each part of a task that could be read, as pixels or as features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mutualign.data.features.extract import Extracted, extract
from mutualign.data.features.settings import FeatureSettings
from mutualign.data.folders.image_cache import Decoded, decode
from mutualign.data.folders.mapped_images import SelectedImages
from mutualign.data.folders.scan import Scan, join
from mutualign.data.types import ImageShape, UnlabelledImages

LARGEST = 224  # side of images if none is asked for


@dataclass(frozen=True)
class Readable:
    """The images of one part that could be read, as pixels or as features."""

    images: UnlabelledImages
    rows: tuple[int, ...]  # of the scan's listing
    bad: tuple[str, ...]  # one line per image that cannot be read
    key: str  # identifies the files' contents and how they were read
    pictures: UnlabelledImages | None = None  # small pictures, if the images are features

    @classmethod
    def of_pixels(cls, decoded: Decoded) -> Readable:
        return cls(decoded.images, decoded.rows, decoded.bad, decoded.key)

    @classmethod
    def of_features(cls, scanned: Scan, joined: Scan, extracted: Extracted) -> Readable:
        """Those of one part, from the features of all photos of its folder."""
        place = {joined.listing.paths[row]: number for number, row in enumerate(extracted.rows)}
        paths = scanned.listing.paths
        rows = tuple(row for row, path in enumerate(paths) if path in place)
        own = [place[paths[row]] for row in rows]
        missing = tuple(f"{path}: " for path in paths if path not in place)
        faults = tuple(fault for fault in extracted.bad if fault.startswith(missing))
        digests = json.dumps([extracted.key, [scanned.digests[row] for row in rows]])
        return cls(
            SelectedImages.of(extracted.images, own),
            rows,
            (*scanned.bad, *faults),
            hashlib.sha256(digests.encode()).hexdigest()[:32],
            SelectedImages.of(extracted.pictures, own),
        )


def read_features(scans: Mapping[str, Scan], settings: FeatureSettings) -> dict[str, Readable]:
    """Features of each part. Parts of one folder are computed together, so that no photo is computed twice."""
    found: dict[str, Readable] = {}
    for where in dict.fromkeys(one.listing.where.resolve() for one in scans.values()):
        parts = {part: one for part, one in scans.items() if one.listing.where.resolve() == where}
        joined = join(list(parts.values()))
        extracted = extract(joined, settings, " and ".join(parts))
        found |= {part: Readable.of_features(one, joined, extracted) for part, one in parts.items()}
    return {part: found[part] for part in scans}


def read_pixels(scans: Mapping[str, Scan], side: int) -> dict[str, Readable]:
    """Return the images of each part, made square."""
    return {
        part: Readable.of_pixels(decode(one, ImageShape(one.channels, side, side), part)) for part, one in scans.items()
    }


def median_side(scans: Iterable[Scan]) -> int:
    sides = sorted(min(shape.height, shape.width) for one in scans for shape in one.shapes)
    return min(sides[len(sides) // 2], LARGEST)
