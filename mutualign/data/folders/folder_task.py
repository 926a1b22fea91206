"""A user's own images or feature vectors as a task: source, target, and labelled ones to test on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mutualign.data.features.settings import FeatureSettings
from mutualign.data.folders.checks import copies, ranges
from mutualign.data.folders.class_names import class_indices
from mutualign.data.folders.image_cache import Readable
from mutualign.data.folders.image_io import decode_image, image_shape, read_image_file
from mutualign.data.folders.listing import Listing, list_labelled, list_unlabelled
from mutualign.data.folders.readable import median_side, read_features, read_pixels
from mutualign.data.folders.scan import Scan, scan
from mutualign.data.folders.tables import TABLES
from mutualign.data.folders.vector_task import load_vector_task
from mutualign.data.folders.vectors import NUMPY, holds_vectors
from mutualign.data.split import hold_out_tenth
from mutualign.data.task import Pictures, Task, sample_rows
from mutualign.data.types import ImageShape, LabelledImages, TargetDataset, spread
from mutualign.errors import MutualignError
from mutualign.io.numbers import percent

OnBadImage = Literal["skip", "fail"]
BAD_SHARE = 0.01  # of images that may be unreadable and are left out
MOST = 1024  # largest side that may be asked for
TYPICAL = 25  # images whose headers say how large images are
SHOWN = 10  # unreadable images that an error names


@dataclass(frozen=True)
class FolderTask:
    """Where a user's images are. Labelled ones: class folders, or a table (.csv, .parquet) of path and label.

    Instead of images, all parts may be files of feature vectors, which `read_vectors` describes.

    Images are made square with the side `image_size`; by default, the median shorter side of all images, 224 at most.
    `decode_image` states the rule. Without `source_test` a tenth of each source class is held out; without
    `target_test` the target has no labels to evaluate with. Unreadable images are left out, up to 1 % of each folder;
    with on_bad_image="fail" none may be.
    """

    source: Path
    target: Path
    source_test: Path | None = None
    target_test: Path | None = None
    image_size: int | None = None
    on_bad_image: OnBadImage = "skip"
    features: FeatureSettings | None = None  # train on features of a pretrained network instead of pixels

    @property
    def name(self) -> str:
        """For the run folder: `SOURCE-to-TARGET`, from the names of the folders, or of files without their suffix."""
        places = [path.resolve() for path in (self.source, self.target)]
        names = [one.stem if one.suffix.lower() in (*TABLES, *NUMPY) else one.name for one in places]
        return "-to-".join(re.sub(r"[^\w.-]+", "-", name) for name in names)

    @property
    def is_vectors(self) -> bool:
        """Whether the parts are feature vectors instead of images."""
        return any(holds_vectors(path) for path in self._places().values())

    def _places(self) -> dict[str, Path]:
        parts = {"source": self.source, "source test": self.source_test}
        parts |= {"target": self.target, "target test": self.target_test}
        return {part: path for part, path in parts.items() if path is not None}

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data for a run's config, with absolute paths."""
        places = {
            key: str(value.resolve()) if isinstance(value, Path) else value for key, value in asdict(self).items()
        }
        return {key: value for key, value in places.items() if value is not None}

    def typical_side(self) -> int:
        """The median shorter side of some source images, from their headers; 0 if none can be read."""
        paths = list_labelled(self.source).paths
        chosen = [paths[row] for row in spread(len(paths), TYPICAL).tolist()]
        sides = []
        for path in chosen:
            with suppress(MutualignError):
                shape = image_shape(read_image_file(path), path)
                sides.append(min(shape.height, shape.width))
        return sorted(sides)[len(sides) // 2] if sides else 0

    def load(self) -> Task:
        """Load the task. Raises MutualignError, with advice, if the images or vectors cannot make one."""
        if self.is_vectors:
            if self.image_size is not None or self.features is not None:
                raise MutualignError(
                    f"{self.source}: feature vectors have no image size, and features are not computed of them\n"
                    "  hint:    leave --image-size out, or give images"
                )
            return load_vector_task(self.name, self._places(), self)
        if self.image_size is not None and not 1 <= self.image_size <= MOST:
            raise MutualignError(
                f"the image size is from 1 to {MOST}, got {self.image_size}\n  hint:    choose another --image-size"
            )
        listings, names = self._list()
        scans = {part: scan(listing, part) for part, listing in listings.items()}
        # Features take long: too many unreadable headers stop the run before.
        self._judge_bad({part: scanned.bad for part, scanned in scans.items()}, listings)
        decoded, kind = self._read(scans)
        notes = [*_listing_notes(listings), kind]
        notes += self._judge_bad({part: one.bad for part, one in decoded.items()}, listings)
        kept = {part: scans[part].listing.take(one.rows) for part, one in decoded.items()}
        for part in ("source", "source test", "target test"):
            if part in kept:
                notes += _judge_lost_classes(part, listings[part], kept[part])
        notes += copies(scans)
        if self.features is None:
            notes += ranges({part: one.images for part, one in decoded.items()})
        labels = {
            part: torch.tensor(class_indices(one.labels, names, one.where))
            for part, one in kept.items()
            if one.labels is not None and part != "target"
        }
        test = "target test" if "target test" in decoded else "target"
        identity = _identity(decoded, names, kind.removeprefix("images: "))
        labelled = f"{identity}, labels {_digest({part: one.tolist() for part, one in labels.items()})}"
        return Task(
            self.name,
            labelled + _missing(scans, decoded),
            names,
            LabelledImages(decoded["source"].images, labels["source"]),
            LabelledImages(decoded["source test"].images, labels["source test"]),
            TargetDataset(decoded["target"].images, None),
            TargetDataset(decoded[test].images, labels.get(test)),
            notes=tuple(notes),
            folders=self,
            former_identities=(identity, labelled),  # early runs recorded no labels, later ones not what was missing
            features=self.features,
            pictures=self._pictures({"source": "source test", "target": test}, decoded, kept),
            target_test_files=tuple(map(str, kept[test].paths)),
        )

    def _pictures(
        self, parts: Mapping[str, str], decoded: Mapping[str, Readable], kept: Mapping[str, Listing]
    ) -> Pictures | None:
        """What to show of the test sets, if the task trains on features."""
        if self.features is None:
            return None
        side = self.features.pretrained.side
        small, samples = {}, {}
        for domain, part in parts.items():
            pictures, paths = decoded[part].pictures, kept[part].paths
            assert pictures is not None  # noqa: S101 - features always have them
            shown = [paths[row] for row in sample_rows(len(paths)).tolist()]
            photos = [decode_image(read_image_file(path), path, ImageShape(3, side, side)) for path in shown]
            small[domain], samples[domain] = pictures, torch.stack(photos)
        return Pictures(small["source"], small["target"], samples["source"], samples["target"])

    def _read(self, scans: Mapping[str, Scan]) -> tuple[dict[str, Readable], str]:
        """Read the pixels, or the features, of each part; also return what the images are, for notes and identity."""
        if self.features is not None:
            kind = f"images: {self.features.views} views as features of {self.features.network}"
            return read_features(scans, self.features), kind
        side = self.image_size or median_side(scans.values())
        return read_pixels(scans, side), f"images: {side}x{side}"

    def _list(self) -> tuple[dict[str, Listing], tuple[str, ...]]:
        """List the images of each part, and the classes. Raises MutualignError if a part lacks images or a class."""
        source, target = list_labelled(self.source), list_unlabelled(self.target)
        names = _checked_classes(source)
        if self.source_test is None:
            labels = torch.tensor(class_indices(source.labels or (), names, source.where))
            held = hold_out_tenth(labels, names, source.where)
            rest, chosen = (rows.nonzero().flatten().tolist() for rows in (~held, held))
            source, source_test = source.take(rest), source.take(chosen)
        else:
            source_test = list_labelled(self.source_test)
        listings = {"source": source, "source test": source_test, "target": target}
        if self.target_test is not None:
            listings["target test"] = list_labelled(self.target_test)
        for one in listings.values():
            class_indices(sorted(set(one.labels or ())), names, one.where)  # raises for a class that the source lacks
        return listings, names

    def _judge_bad(self, bad: Mapping[str, Sequence[str]], listings: Mapping[str, Listing]) -> list[str]:
        """Return notes on the unreadable images of each place. Raises MutualignError if a folder or table has too many.

        Parts of one folder are judged together: a user does not know which images were held out of it.
        """
        parts_of: dict[Path, list[str]] = {}
        for part, listing in listings.items():
            parts_of.setdefault(listing.where, []).append(part)
        notes, refused, share = [], [], percent(BAD_SHARE, 0)
        for parts in parts_of.values():
            faults = list(dict.fromkeys(fault for part in parts for fault in bad[part]))
            listed = len({path for part in parts for path in listings[part].paths})
            most = 0 if self.on_bad_image == "fail" else int(BAD_SHARE * listed)
            count = f"{parts[0]}: {len(faults)} of {listed} images cannot be read"
            if len(faults) > most:
                allowed = "none may" if self.on_bad_image == "fail" else f"up to {share}, here {most}, may"
                refused.append(f"{count}; {allowed} be left out\n{_bad_lines(faults)}")
            elif faults:
                notes += [f"{count} and are left out", *faults]
        if refused:
            other = "" if self.on_bad_image == "skip" else f", or leave up to {share} out with --on-bad-image skip"
            raise MutualignError("\n".join([*refused, f"  hint:    repair or remove them{other}"]))
        return notes


def _bad_lines(bad: Iterable[str]) -> str:
    return "\n".join(f"  bad      {one}" for one in list(bad)[:SHOWN])


def _checked_classes(source: Listing) -> tuple[str, ...]:
    """Return the classes. Raises MutualignError if there are fewer than two, or one that cannot be trained on."""
    if source.empty_classes:
        raise MutualignError(
            f"{source.where}: no image in the class folder(s) {_quoted(source.empty_classes)}\n"
            f"  skipped  {source.skipped or 'nothing'}\n"
            "  hint:    put images of the class there, or remove the folder, or start its name with a dot to train\n"
            "           without the class"
        )
    names = source.class_names()
    if len(names) < 2:
        is_table = source.where.suffix.lower() in TABLES
        hint = "add rows of another label to the table" if is_table else "give the folder with one folder per class"
        raise MutualignError(
            f'{source.where}: only the class "{names[0]}"; a classifier needs at least two\n  hint:    {hint}'
        )
    return names


def _listing_notes(listings: Mapping[str, Listing]) -> Iterable[str]:
    seen: set[Path] = set()
    for part, one in listings.items():
        # What was skipped is the same for a part that was held out of another.
        yield f"{part}: {one.summary if one.where not in seen else one.classes}"
        if one.empty_classes:  # never of the source
            yield f"{part}: no image in the class folder(s) {_quoted(one.empty_classes)}"
        seen.add(one.where)


def _judge_lost_classes(part: str, listed: Listing, kept: Listing) -> list[str]:
    """Return a note on classes of which no image can be read. Raises MutualignError if the source loses one."""
    lost = sorted(set(listed.labels or ()) - set(kept.labels or ()))
    if not lost:
        return []
    message = f"{part}: no image of the class(es) {_quoted(lost)} can be read"
    if part == "source":
        raise MutualignError(f"{message}\n  hint:    repair the images, or leave the class out")
    return [message]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _identity(decoded: Mapping[str, Readable], names: tuple[str, ...], kind: str) -> str:
    """What the images are. Editing these words breaks resume for existing runs."""
    parts = ", ".join(f"{part} {len(one.images)} images {one.key}" for part, one in decoded.items())
    return f"own images of {kind}, {len(names)} classes ({', '.join(names)}): {parts}"


def _missing(scans: Mapping[str, Scan], decoded: Mapping[str, Readable]) -> str:
    """Which images could not be decoded, since the keys of parts are of all; empty if all could."""
    missing = {
        part: [one.digests[row] for row in sorted(set(range(len(one.digests))).difference(decoded[part].rows))]
        for part, one in scans.items()
    }
    return f", without {_digest(missing)}" if any(missing.values()) else ""


def _digest(values: Mapping[str, Sequence[Any]]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
