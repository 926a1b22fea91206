"""Image files decoded once, in parallel, into a file of bytes that is mapped into memory; kept by content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import platformdirs
import torch
from jaxtyping import Int64
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from mutualign.data.folders.image_io import decode_image, image_shape, read_image_file
from mutualign.data.folders.listing import Listing
from mutualign.data.types import ImageShape, Pixels, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.io.text import LARGEST_JSON, parse_json, read_text

T = TypeVar("T")
RULE = 1  # of decoding; raised when `decode_image` gives other pixels for the same file
CHUNK = 512  # images that are decoded before any of them is written
WHOLE = 4 << 30  # bytes up to which images are copied onto an accelerator as a whole
BAD_SHARE = 0.01  # of images that may be unreadable and are left out
OnBadImage = Literal["skip", "fail"]


@dataclass(frozen=True)
class MappedImages(UnlabelledImages):
    """Images in a mapped file: what a batch needs is read when it is needed, so they may be larger than memory."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def take(self, indices: Int64[Tensor, " batch"], key: int) -> Pixels:
        return self.pixels[indices.cpu()].to(self.device)

    def to(self, device: torch.device) -> UnlabelledImages:
        """On an accelerator as a whole if they are less than 4 GiB, else batch by batch."""
        if device.type != "cpu" and self.pixels.numel() < WHOLE:
            return UnlabelledImages(self.pixels.to(device))
        return replace(self, device=device)


@dataclass(frozen=True)
class Scan:
    """What the files of a listing hold, by their bytes and headers; nothing is decoded yet."""

    listing: Listing  # of the images whose header can be read
    digests: tuple[str, ...]  # SHA-256 of each file
    shapes: tuple[ImageShape, ...]
    bad: tuple[str, ...]  # the other images, each as a line that names the file and the fault

    @property
    def channels(self) -> int:
        """1 if all images are grey, else 3."""
        return max(shape.channels for shape in self.shapes)


def scan(listing: Listing, what: str) -> Scan:
    """Read every file of a listing once. Raises MutualignError if not a single one is an image."""

    def look(path: Path) -> tuple[str, ImageShape] | str:
        try:
            content = read_image_file(path)
            return hashlib.sha256(content).hexdigest(), image_shape(content, path)
        except MutualignError as error:
            return str(error)

    found = list(in_parallel(look, listing.paths, f"reading {what}"))
    good = [row for row, one in enumerate(found) if not isinstance(one, str)]
    bad = tuple(one for one in found if isinstance(one, str))
    if not good:
        raise MutualignError(f"{listing.where}: none of the {len(listing)} images can be read\n  such as  {bad[0]}")
    readable = [one for one in found if not isinstance(one, str)]
    return Scan(listing.take(good), tuple(one[0] for one in readable), tuple(one[1] for one in readable), bad)


@dataclass(frozen=True)
class Decoded:
    """Images of one shape, and which of the scanned ones they are."""

    images: UnlabelledImages
    rows: tuple[int, ...]  # of the scan's listing
    bad: tuple[str, ...]  # the images that cannot be read or decoded, each as a line that names the file and the fault
    key: str  # says what the files held, and how they were decoded


def decode(scanned: Scan, shape: ImageShape, what: str) -> Decoded:
    """The scanned images at a shape: mapped from the cache, or decoded into it now.

    A cached file that is damaged is decoded anew. Raises MutualignError where the cache cannot be written, and if not
    a single image can be decoded.
    """
    key = hashlib.sha256(json.dumps([RULE, shape, scanned.digests]).encode()).hexdigest()[:32]
    place = Path(platformdirs.user_cache_dir("mutualign")) / "images" / f"{key}.bytes"
    about = _kept(place)
    if about is None:
        try:
            about = _write(place, scanned, shape, what)
        except OSError as error:
            raise MutualignError(
                f"{place}: decoded images cannot be kept: {error.strerror}\n"
                "  do       free space there, or choose another folder with the environment variable XDG_CACHE_HOME"
            ) from error
    faults = dict(about["bad"])
    rows = tuple(row for row in range(len(scanned.listing)) if row not in faults)
    bad = (*scanned.bad, *(f"{scanned.listing.paths[row]}: {fault}" for row, fault in faults.items()))
    if not rows:
        raise MutualignError(f"{scanned.listing.where}: none of the images can be decoded\n  such as  {bad[0]}")
    channels, height, width = shape
    mapped = torch.from_file(str(place), shared=False, size=about["bytes"], dtype=torch.uint8)
    return Decoded(MappedImages(mapped.view(len(rows), height, width, channels)), rows, bad, key)


def _write(place: Path, scanned: Scan, shape: ImageShape, what: str) -> dict[str, Any]:
    """Decode into a file beside, then put it and its description in place."""
    paths, digests = scanned.listing.paths, dict(zip(scanned.listing.paths, scanned.digests, strict=True))

    def pixels(path: Path) -> bytes | str:
        try:
            content = read_image_file(path)
            if hashlib.sha256(content).hexdigest() != digests[path]:
                return "changed while it was read"  # what is kept goes by the digests of the scan
            return decode_image(content, path, shape).numpy().tobytes()
        except MutualignError as error:
            return str(error).removeprefix(f"{path}: ")

    place.parent.mkdir(parents=True, exist_ok=True)
    beside, described = (place.with_suffix(f".{os.getpid()}.{end}") for end in ("part", "json.part"))
    sha256 = hashlib.sha256()
    about: dict[str, Any] = {"bytes": 0, "bad": []}
    try:
        with beside.open("wb") as file:
            for row, one in enumerate(in_parallel(pixels, paths, f"decoding {what}")):
                if isinstance(one, str):
                    about["bad"].append([row, one])
                    continue
                file.write(one)
                sha256.update(one)
                about["bytes"] += len(one)
        about["sha256"] = sha256.hexdigest()
        place.with_suffix(".json").unlink(missing_ok=True)  # pixels without a description are decoded anew
        beside.replace(place)
        described.write_text(json.dumps(about | {"seal": _seal(about)}), encoding="utf-8")
        described.replace(place.with_suffix(".json"))
    finally:
        for left in (beside, described):
            left.unlink(missing_ok=True)
    return about


def _seal(about: dict[str, Any]) -> str:
    """The SHA-256 of a description: a row of a bad image that is wrong by one would shift all labels after it."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _kept(place: Path) -> dict[str, Any] | None:
    """The description of a cached file, if the file is as described."""
    try:
        about: dict[str, Any] = parse_json(read_text(place.with_suffix(".json"), LARGEST_JSON))
        if about.pop("seal") != _seal(about):
            return None
        with place.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return about if found == about["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def in_parallel(function: Callable[[Path], T], paths: Sequence[Path], what: str) -> Iterator[T]:
    """The function of each path, in order, by threads; at most 512 results wait. Progress goes to a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        ThreadPoolExecutor() as pool,
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        for first in progress.track(range(0, len(paths), CHUNK), description=what):
            yield from pool.map(function, paths[first : first + CHUNK])
