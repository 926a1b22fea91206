"""Image files turned into rows of bytes, once each and in parallel, in a mapped file; kept by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
from jaxtyping import UInt8
from torch import Tensor

from mutualign.data.folders.image_io import BYTES_PER_PIXEL, decode_image, read_image_file
from mutualign.data.folders.mapped_images import MappedImages, map_rows
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
    digests: list[str]  # of the image files, one per row
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
    way, key = digest_of(RULE, shape), digest_of(RULE, shape, scanned.digests)
    output = shape.channels * shape.height * shape.width
    costs = [BYTES_PER_PIXEL * one.height * one.width + output for one in scanned.shapes]

    def pixels(content: bytes, path: Path) -> bytes:
        return decode_image(content, path, shape).numpy().tobytes()

    kept = keep_rows(f"images/{way}", key, scanned, pixels, costs, f"decoding {what}")
    return Readable(MappedImages.open(kept.path, len(kept.rows), shape), kept.rows, kept.bad, key)


def digest_of(*parts: Any) -> str:
    """Name cached rows by what they depend on: plain data."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def keep_rows(
    folder: str,
    key: str,
    scanned: Scan,
    compute: Callable[[bytes, Path], bytes],
    costs: Sequence[int],
    what: str,
    expect: Callable[[Path, Sequence[Path]], None] = lambda place, paths: None,
) -> KeptRows:
    """Return a cached file of rows, one per scanned image, or make it now.

    Rows that the folder has in files of other sets of images, or of this set before an interrupt, are copied. The
    others are computed by threads; an interrupt keeps those that are finished. Images that could not be read are tried
    again each time: a disk or a network may have failed for a moment. `compute` turns a file's content into a row; it
    raises MutualignError for what it cannot read. `costs` estimate the bytes of memory for each image.
    `expect` is called before the work, if there is any, with the place of the cached file and the images to compute.

    `folder` must identify the way in which rows are computed, `key` that and the images. Raises MutualignError if the
    cache cannot be written, or if no row can be computed.
    """
    place = Path(platformdirs.user_cache_dir("mutualign")) / folder / f"{key}.bytes"
    paths = scanned.listing.paths
    digests, cost = dict(zip(paths, scanned.digests, strict=True)), dict(zip(paths, costs, strict=True))
    earlier: dict[str, UInt8[Tensor, " bytes"]] = {}

    def row_of(path: Path) -> bytes | str:
        """Return the row of an image, or what is wrong with it."""
        if digests[path] in earlier:
            return earlier[digests[path]].numpy().tobytes()
        try:
            content = read_image_file(path)
            if hashlib.sha256(content).hexdigest() != digests[path]:
                return "changed while it was read"  # the cache is kept by the digests of the scan
            return compute(content, path)
        except MutualignError as error:
            return str(error).removeprefix(f"{path}: ")

    def rows_of(some: Sequence[Path]) -> closing[Generator[bytes | str, None, None]]:
        return closing(in_parallel(row_of, some, what, cost.__getitem__))

    def is_final(info: CacheInfo) -> bool:
        """Whether no interrupt has ended the work, and images that could not be read still cannot."""
        with rows_of([paths[row] for row, _ in info.bad]) as again:
            return len(info.digests) + len(info.bad) == len(paths) and all(isinstance(one, str) for one in again)

    info = _read_info(place)
    if info is None or not is_final(info):
        earlier |= _earlier_rows(place.parent, set(scanned.digests))
        if missing := [path for path in paths if digests[path] not in earlier]:
            expect(place, missing)
        try:
            with rows_of(paths) as results:
                info = _write(place, scanned, results)
        except OSError as error:
            raise MutualignError(
                f"{place}: cannot be kept in the cache: {error.strerror}\n"
                "  hint:    free space there, or set another folder with the variable XDG_CACHE_HOME (on Linux)"
            ) from error
    faults = dict(info.bad)
    rows = tuple(row for row in range(len(paths)) if row not in faults)
    bad = (*scanned.bad, *(f"{paths[row]}: {fault}" for row, fault in faults.items()))
    if not rows:
        raise MutualignError(f"{scanned.listing.where}: none of the images can be decoded\n  such as  {bad[0]}")
    return KeptRows(place, rows, bad)


def _write(place: Path, scanned: Scan, results: Iterable[bytes | str]) -> CacheInfo:
    """Write rows into a file, then its description. An interrupt is raised after both are written. Raises OSError."""
    described = place.with_suffix(".json")
    place.parent.mkdir(parents=True, exist_ok=True)
    digests: list[str] = []
    bad: list[tuple[int, str]] = []
    sha256, size = hashlib.sha256(), 0
    interrupt: BaseException | None = None

    def forget_old() -> None:
        described.unlink(missing_ok=True)  # pixels without a description are decoded again

    with open_atomically(place, forget_old, durable=False) as file:
        try:
            for row, one in enumerate(results):
                if isinstance(one, str):
                    bad.append((row, one))
                    continue
                file.write(one)
                sha256.update(one)
                size += len(one)
                digests.append(scanned.digests[row])
        except (KeyboardInterrupt, SystemExit) as error:  # SystemExit: a signal, in the commands
            interrupt = error
    about = {"bytes": size, "digests": digests, "bad": bad, "sha256": sha256.hexdigest()}
    seal = _seal(about)
    with open_atomically(described, durable=False) as file:
        file.write(json.dumps(about | {"seal": seal}).encode())
    if interrupt:
        raise interrupt
    return CacheInfo(size, sha256.hexdigest(), seal, digests, bad)


def _earlier_rows(folder: Path, wanted: set[str]) -> dict[str, UInt8[Tensor, " bytes"]]:
    """Map the rows of wanted image files, by digest, in all cached files of a folder that are as described."""
    found: dict[str, UInt8[Tensor, " bytes"]] = {}
    for described in sorted(folder.glob("*.json")):
        place = described.with_suffix(".bytes")
        info = _read_description(place)
        if info is None or (wanted - found.keys()).isdisjoint(info.digests):
            continue
        with suppress(OSError, MutualignError):  # gone, or of another size
            rows, _ = map_rows(place, len(info.digests), info.bytes // len(info.digests))
            if hashlib.sha256(rows.numpy()).hexdigest() == info.sha256:  # type: ignore[arg-type]
                found |= {digest: row for digest, row in zip(info.digests, rows, strict=True) if digest in wanted}
    return found


def _seal(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _read_info(place: Path) -> CacheInfo | None:
    """Read the description of a cached file; None if there is none, or if the file is not as described."""
    info = _read_description(place)
    try:
        with place.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    return info if info and found == info.sha256 else None


def _read_description(place: Path) -> CacheInfo | None:
    """Read the description of a cached file; None if there is none, or if it is damaged."""
    try:
        info = decode_typed(read_text(place.with_suffix(".json"), LARGEST_JSON), CacheInfo, str(place))
    except (OSError, ValueError, MutualignError):
        return None
    about = {"bytes": info.bytes, "digests": info.digests, "bad": info.bad, "sha256": info.sha256}
    return info if info.seal == _seal(about) else None
