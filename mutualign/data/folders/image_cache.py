"""Image files turned into rows of bytes once, in parallel, in a file that is mapped into memory; kept by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from mutualign.data.folders.image_io import BYTES_PER_PIXEL, decode_image, read_image_file
from mutualign.data.folders.mapped_images import MappedImages
from mutualign.data.folders.parallel import in_parallel
from mutualign.data.folders.scan import Scan
from mutualign.data.types import ImageShape, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.io.atomic import open_atomically
from mutualign.io.text import LARGEST_JSON, read_text
from mutualign.io.typed import decode_typed

RULE = 1  # of decoding; raised when `decode_image` returns other pixels for the same file


@dataclass(frozen=True)
class Readable:
    """The scanned images that could be read, as pixels or as features."""

    images: UnlabelledImages
    rows: tuple[int, ...]  # of the scan's listing
    bad: tuple[str, ...]  # one line per image that cannot be read: the file and the fault
    key: str  # identifies the files' contents and how they were read
    pictures: UnlabelledImages | None = None  # small pictures, if the images are features


@dataclass(frozen=True)
class CacheInfo:
    """The description of a cached file."""

    bytes: int
    sha256: str
    seal: str  # SHA-256 of the rest; a wrong row of a bad image would shift all labels after it
    bad: list[tuple[int, str]] = field(default_factory=list)  # rows of the scan that are missing, each with the fault


@dataclass(frozen=True)
class KeptRows:
    """A cached file with one row of bytes per readable image of a scan."""

    path: Path
    rows: tuple[int, ...]  # of the scan's listing
    bad: tuple[str, ...]  # one line per image that cannot be read or decoded


def decode(scanned: Scan, shape: ImageShape, what: str) -> Readable:
    """Return the scanned images at a shape: mapped from the cache, or decoded into it now.

    A damaged cached file is decoded again. Raises MutualignError if the cache cannot be written, or if no image can be
    decoded.
    """
    key = hashlib.sha256(json.dumps([RULE, shape, scanned.digests]).encode()).hexdigest()[:32]
    output = shape.channels * shape.height * shape.width
    costs = [BYTES_PER_PIXEL * one.height * one.width + output for one in scanned.shapes]

    def pixels(content: bytes, path: Path) -> bytes:
        return decode_image(content, path, shape).numpy().tobytes()

    kept = keep_rows(f"images/{key}", scanned, pixels, costs, f"decoding {what}")
    return Readable(MappedImages.open(kept.path, len(kept.rows), shape), kept.rows, kept.bad, key)


def cache_file(name: str) -> Path:
    """Where a cached file of rows is."""
    return Path(platformdirs.user_cache_dir("mutualign")) / f"{name}.bytes"


def keep_rows(
    name: str, scanned: Scan, compute: Callable[[bytes, Path], bytes], costs: Sequence[int], what: str
) -> KeptRows:
    """Return a cached file of rows, one per scanned image, or compute it now by threads.

    `compute` turns a file's content into a row; it raises MutualignError for what it cannot read. `costs` estimate the
    bytes of memory for each image. `name` must identify everything that the rows depend on. Raises MutualignError if
    the cache cannot be written, or if no row can be computed.
    """
    place = cache_file(name)
    info = _read_info(place)
    if info is None:
        try:
            info = _write(place, scanned, compute, costs, what)
        except OSError as error:
            raise MutualignError(
                f"{place}: cannot be kept in the cache: {error.strerror}\n"
                "  hint:    free space there, or choose another folder with the environment variable XDG_CACHE_HOME"
            ) from error
    faults = dict(info.bad)
    rows = tuple(row for row in range(len(scanned.listing)) if row not in faults)
    bad = (*scanned.bad, *(f"{scanned.listing.paths[row]}: {fault}" for row, fault in faults.items()))
    if not rows:
        raise MutualignError(f"{scanned.listing.where}: none of the images can be decoded\n  such as  {bad[0]}")
    return KeptRows(place, rows, bad)


def _write(
    place: Path, scanned: Scan, compute: Callable[[bytes, Path], bytes], costs: Sequence[int], what: str
) -> CacheInfo:
    """Compute rows into a file, then write its description. Raises OSError."""
    paths = scanned.listing.paths
    digests = dict(zip(paths, scanned.digests, strict=True))
    cost = dict(zip(paths, costs, strict=True)).__getitem__

    def read(path: Path) -> bytes | str:
        try:
            content = read_image_file(path)
            if hashlib.sha256(content).hexdigest() != digests[path]:
                return "changed while it was read"  # the cache is kept by the digests of the scan
            return compute(content, path)
        except MutualignError as error:
            return str(error).removeprefix(f"{path}: ")

    described = place.with_suffix(".json")
    place.parent.mkdir(parents=True, exist_ok=True)
    bad: list[tuple[int, str]] = []
    sha256, size = hashlib.sha256(), 0

    def forget_old() -> None:
        described.unlink(missing_ok=True)  # pixels without a description are decoded again

    with (
        open_atomically(place, forget_old, durable=False) as file,
        closing(in_parallel(read, paths, what, cost)) as results,
    ):
        for row, one in enumerate(results):
            if isinstance(one, str):
                bad.append((row, one))
                continue
            file.write(one)
            sha256.update(one)
            size += len(one)
    about = {"bytes": size, "bad": bad, "sha256": sha256.hexdigest()}
    seal = _seal(about)
    with open_atomically(described, durable=False) as file:
        file.write(json.dumps(about | {"seal": seal}).encode())
    return CacheInfo(size, sha256.hexdigest(), seal, bad)


def _seal(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _read_info(place: Path) -> CacheInfo | None:
    """Read the description of a cached file; None if there is none, or if the file is not as described."""
    try:
        info = decode_typed(read_text(place.with_suffix(".json"), LARGEST_JSON), CacheInfo, str(place))
        if info.seal != _seal({"bytes": info.bytes, "bad": info.bad, "sha256": info.sha256}):
            return None
        with place.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return info if found == info.sha256 else None
    except (OSError, ValueError, MutualignError):
        return None
