"""A user's own images as a task: labelled source, unlabelled target, and labelled target images to test on, if any."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mutualign.data.folders.image_cache import BAD_SHARE, Decoded, OnBadImage, Scan, decode, scan
from mutualign.data.folders.listing import TABLES, Listing, class_names, indices_of, list_labelled, list_unlabelled
from mutualign.data.task import Task
from mutualign.data.types import ImageShape, LabelledImages, TargetDataset
from mutualign.errors import MutualignError
from mutualign.nn.randomness import generator

HELD_OUT = 0.1  # of each source class: what source accuracy is measured on where no source test images are given
LARGEST = 224  # side of images where none is asked for
MOST = 1024  # side that may be asked for
_TWO_CLASSES = ("give the folder that holds a folder for each class", "put rows of another label into the table")


@dataclass(frozen=True)
class FolderTask:
    """Where a user's images are. Labelled ones: class folders, or a table (.csv, .parquet) of path and label.

    Images are made square with the side `image_size`; without one, as large as the median shorter side of all images,
    224 at most. `decode_image` states the rule. Without `source_test` a tenth of each source class is held out; without
    `target_test` the target has no labels to judge by. Unreadable images are left out, up to 1 % of each part;
    on_bad_image="fail" takes none.
    """

    source: Path
    target: Path
    source_test: Path | None = None
    target_test: Path | None = None
    image_size: int | None = None
    on_bad_image: OnBadImage = "skip"

    @property
    def name(self) -> str:
        """For the run folder: `SOURCE-to-TARGET`, by the names of the two folders."""
        return "-to-".join(re.sub(r"[^\w.-]+", "-", path.resolve().stem) for path in (self.source, self.target))

    def to_dict(self) -> dict[str, Any]:
        """As plain data for a run's config, from which `FolderTask.of` makes it again."""
        places = {
            key: str(value.resolve()) if isinstance(value, Path) else value for key, value in asdict(self).items()
        }
        return {key: value for key, value in places.items() if value is not None}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> FolderTask:
        """From the plain data of `to_dict`. Raises MutualignError for anything else."""
        places = ("source", "target", "source_test", "target_test")
        found: dict[str, Any] = {key: Path(str(value)) if key in places else value for key, value in data.items()}
        size, on_bad = found.get("image_size"), found.get("on_bad_image", "skip")
        if found.keys() - {*places, "image_size", "on_bad_image"} or not {"source", "target"} <= found.keys():
            raise MutualignError(f"own images: expected source, target and more places, got {', '.join(found)}")
        if on_bad not in ("skip", "fail") or not (size is None or type(size) is int):
            raise MutualignError(f"own images: no settings: image_size {size!r}, on_bad_image {on_bad!r}")
        return cls(**found)

    def load(self) -> Task:
        """The task. Raises MutualignError, which says what to do, for images that cannot make one."""
        if self.image_size is not None and not 1 <= self.image_size <= MOST:
            raise MutualignError(
                f"the image size is from 1 to {MOST}, got {self.image_size}; choose another --image-size"
            )
        source, target = list_labelled(self.source), list_unlabelled(self.target)
        names = _checked_classes(source)
        if self.source_test is None:
            source_train, source_test = _held_out(source)
        else:
            source_train, source_test = source, list_labelled(self.source_test)
        listings = {"source": source_train, "source test": source_test, "target": target}
        if self.target_test is not None:
            listings["target test"] = list_labelled(self.target_test)
        labelled = [part for part, listing in listings.items() if listing.labels]
        for part in labelled:
            indices_of(listings[part], names)  # or says now which class the source lacks
        scans = {part: scan(listing, part) for part, listing in listings.items()}
        side = self.image_size or _median_side(scans.values())
        decoded = {part: decode(one, ImageShape(one.channels, side, side), part) for part, one in scans.items()}
        notes = [f"{part}: {listing.told}" for part, listing in listings.items()]
        notes.append(f"images: {side}x{side}")
        for part, one in decoded.items():
            notes += self._judge_bad(part, one, len(listings[part]))
        sealed = {
            part: torch.tensor(indices_of(scans[part].listing.take(decoded[part].rows), names)) for part in labelled
        }
        test = "target test" if "target test" in decoded else "target"
        return Task(
            self.name,
            _identity(decoded, names, side),
            names,
            LabelledImages(decoded["source"].images, sealed["source"]),
            LabelledImages(decoded["source test"].images, sealed["source test"]),
            TargetDataset(decoded["target"].images, None),
            TargetDataset(decoded[test].images, sealed.get(test)),
            notes=tuple(notes),
            own=self.to_dict(),
        )

    def _judge_bad(self, part: str, decoded: Decoded, listed: int) -> list[str]:
        """A line for each unreadable image. Raises MutualignError where there are too many of them."""
        if not decoded.bad:
            return []
        most = 0 if self.on_bad_image == "fail" else int(BAD_SHARE * listed)
        told = f"{part}: {len(decoded.bad)} of {listed} images cannot be read"
        allowed = "none" if self.on_bad_image == "fail" else f"up to {BAD_SHARE:.0%}, here {most},"
        if len(decoded.bad) > most:
            shown = "\n".join(f"  bad      {one}" for one in decoded.bad[:10])
            raise MutualignError(
                f"{told}; {allowed} may be left out\n{shown}\n  do       mend or remove them"
                + ("" if self.on_bad_image == "skip" else ", or leave up to 1 % out with --on-bad-image skip")
            )
        return [f"{told} and are left out", *decoded.bad]


def _checked_classes(source: Listing) -> tuple[str, ...]:
    names, counts = class_names(source), source.class_counts()
    if len(names) < 2:
        raise MutualignError(
            f'{source.where}: only the class "{names[0]}"; a classifier needs two classes or more\n'
            f"  do       {_TWO_CLASSES[source.where.suffix.lower() in TABLES]}"
        )
    for name, count in counts.items():
        if count < 2:
            raise MutualignError(
                f'{source.where}: class "{name}" has {count} image; it needs 2 or more, as some are held out\n'
                "  do       add images of it, or leave the class out"
            )
    return names


def _held_out(source: Listing) -> tuple[Listing, Listing]:
    """The source in two: a tenth of each class, at least one image and chosen at random, is the second part."""
    chosen: set[int] = set()
    for name, count in source.class_counts().items():
        rows = [row for row, label in enumerate(source.labels or ()) if label == name]
        order = torch.randperm(count, generator=generator("own images", "held out", name)).tolist()
        chosen |= {rows[place] for place in order[: max(1, round(HELD_OUT * count))]}
    every = range(len(source))
    rest, held = (source.take(row for row in every if (row in chosen) == is_held) for is_held in (False, True))
    return rest, replace(held, ignored=0)  # said of the first


def _median_side(scans: Iterable[Scan]) -> int:
    sides = sorted(min(shape.height, shape.width) for one in scans for shape in one.shapes)
    return min(sides[len(sides) // 2], LARGEST)


def _identity(decoded: Mapping[str, Decoded], names: tuple[str, ...], side: int) -> str:
    parts = ", ".join(f"{part} {len(one.images)} images {one.key}" for part, one in decoded.items())
    return f"own images of {side}x{side}, {len(names)} classes ({', '.join(names)}): {parts}"
