"""Features of scanned photos: computed once, with progress and an estimate of the time, and kept by content."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from jaxtyping import UInt8
from rich.console import Console
from torch import Tensor

from mutualign.data.features.network import feature_network
from mutualign.data.features.settings import FeatureSettings
from mutualign.data.features.views import photo_views
from mutualign.data.folders.image_cache import Readable, digest_of, keep_rows
from mutualign.data.folders.image_io import BYTES_PER_PIXEL, read_image_file
from mutualign.data.folders.mapped_images import MappedImages, map_rows
from mutualign.data.folders.scan import Scan
from mutualign.errors import MutualignError

RULE = 1  # raised when views or features of the same file change
PICTURE = 64  # side of the small picture that is kept of each photo, for reports and the demo
PICTURE_BYTES = 3 * PICTURE**2
TIMED = 4  # photos that the time is estimated from
WORTH_SAYING = 5.0  # seconds from which an estimate is printed


def extract(scanned: Scan, settings: FeatureSettings, what: str) -> Readable:
    """Return the features of scanned photos: mapped from the cache, or computed into it now, each photo once.

    The images are float16 [n, views, 1, features], the small pictures [n, 64, 64, 3]. Raises MutualignError if the
    network's weights are not installed, if the disk has no room for the features (before the work starts), or if no
    photo can be read.
    """
    pretrained, views = settings.pretrained, settings.views
    pretrained.check()
    side = pretrained.side
    named = () if pretrained.is_published else (pretrained.network,)  # one file of weights may fit several networks
    reading = (RULE, pretrained.digest, side, views, *named)
    way, key = digest_of(*reading), digest_of(*reading, scanned.digests)
    costs = [BYTES_PER_PIXEL * shape.height * shape.width + views * side * side * 64 for shape in scanned.shapes]

    def row(content: bytes, path: Path) -> bytes:
        return _row(content, path, settings)

    def expect(place: Path, paths: Sequence[Path]) -> None:
        network = feature_network(pretrained)
        _require_room(place, len(scanned.listing) * (2 * views * network.features + PICTURE_BYTES))
        _say_how_long(paths, len(scanned.listing), settings, what)

    kept = keep_rows(f"features/{way}", key, scanned, row, costs, f"features of {what}", expect)
    n = len(kept.rows)
    row_bytes = kept.path.stat().st_size // n
    rows, state = map_rows(kept.path, n, row_bytes)
    split = row_bytes - PICTURE_BYTES
    features = rows[:, :split].view(torch.float16).view(n, views, 1, split // (2 * views))
    pictures = rows[:, split:].view(n, PICTURE, PICTURE, 3)
    images, small = (MappedImages(pixels, kept.path, state) for pixels in (features, pictures))
    return Readable(images, kept.rows, kept.bad, key, small)


def _row(content: bytes, path: Path, settings: FeatureSettings) -> bytes:
    """The features of a photo's views and its small picture, as bytes; a damaged photo needs no network."""
    pictures = photo_views(content, path, settings.pretrained.side, settings.views, hashlib.sha256(content).hexdigest())
    features = feature_network(settings.pretrained)(pictures)
    if not torch.isfinite(features).all():
        raise MutualignError(f"{path}: its features are not finite")
    return features.half().numpy().tobytes() + small_picture(pictures[0]).numpy().tobytes()


def small_picture(pixels: UInt8[Tensor, "height width 3"]) -> UInt8[Tensor, "64 64 3"]:
    """Scale a square picture down."""
    images = pixels.permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(images, size=(PICTURE, PICTURE), mode="bilinear", antialias=True)
    return small[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def _require_room(place: Path, needed: int) -> None:
    """Raise MutualignError if the disk of the cache has too little room."""
    folder = next(parent for parent in place.parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MutualignError(
            f"{folder}: {free >> 20:,} MiB are free; the features need {needed >> 20:,} MiB\n"
            "  hint:    free space there, choose another folder with the variable XDG_CACHE_HOME (on Linux),\n"
            "           or have fewer views (--set views=1)"
        )


def _say_how_long(paths: Sequence[Path], total: int, settings: FeatureSettings, what: str) -> None:
    """Print an estimate of the time that these photos, of a total, take, from the first of them, if it is long."""
    each = []
    for path in paths[:TIMED]:
        start = time.perf_counter()
        try:
            _row(read_image_file(path), path, settings)
        except MutualignError:
            continue  # unreadable photos are counted and named later
        each.append(time.perf_counter() - start)
    if not each:
        return
    threads = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 32)
    seconds = median(each) * len(paths) / threads  # a pause during one photo does not count
    if seconds > WORTH_SAYING:
        views = f", {settings.views} views each" if settings.views > 1 else ""
        minutes = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
        count = f"{total:,}" if len(paths) == total else f"{len(paths):,} of {total:,}"
        line = f"features of {count} photos ({what}{views}): about {minutes}, once; later runs reuse them"
        Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
