"""The images of each part of a task that could be read, as pixels or as features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from mutualign.data.features.extract import extract
from mutualign.data.features.settings import FeatureSettings
from mutualign.data.folders.image_cache import Readable, decode
from mutualign.data.folders.mapped_images import SelectedImages
from mutualign.data.folders.scan import Scan, join
from mutualign.data.types import ImageShape

LARGEST = 224  # side of images if none is asked for


def read_pixels(scans: Mapping[str, Scan], side: int) -> dict[str, Readable]:
    """Return the images of each part, made square."""
    return {part: decode(one, ImageShape(one.channels, side, side), part) for part, one in scans.items()}


def read_features(scans: Mapping[str, Scan], settings: FeatureSettings) -> dict[str, Readable]:
    """Features of each part. Parts of one folder are computed together, so that no photo is computed twice."""
    found: dict[str, Readable] = {}
    for where in dict.fromkeys(one.listing.where.resolve() for one in scans.values()):
        parts = {part: one for part, one in scans.items() if one.listing.where.resolve() == where}
        joined = join(list(parts.values()))
        features = extract(joined, settings, " and ".join(parts))
        found |= {part: part_of(one, joined, features) for part, one in parts.items()}
    return {part: found[part] for part in scans}


def part_of(scanned: Scan, joined: Scan, features: Readable) -> Readable:
    """Return the features of one part, from those of all photos of its folder."""
    place = {joined.listing.paths[row]: number for number, row in enumerate(features.rows)}
    paths = scanned.listing.paths
    rows = tuple(row for row, path in enumerate(paths) if path in place)
    own = [place[paths[row]] for row in rows]
    missing = tuple(f"{path}: " for path in paths if path not in place)
    faults = tuple(fault for fault in features.bad if fault.startswith(missing))
    digests = json.dumps([features.key, [scanned.digests[row] for row in rows]])
    return Readable(
        SelectedImages.of(features.images, own),
        rows,
        (*scanned.bad, *faults),
        hashlib.sha256(digests.encode()).hexdigest()[:32],
        None if features.pictures is None else SelectedImages.of(features.pictures, own),
    )


def median_side(scans: Iterable[Scan]) -> int:
    sides = sorted(min(shape.height, shape.width) for one in scans for shape in one.shapes)
    return min(sides[len(sides) // 2], LARGEST)
