"""Tables of tasks: their images, and the files that they need, from the registry."""

from __future__ import annotations

from typing import NamedTuple

from mutualign.data.datasets import TASKS, TaskEntry
from tools.markdown import markdown, table
from tools.results import Results


class Images(NamedTuple):
    """Numbers of images of a task that is not on image files, and their side in pixels; a test compares the data."""

    source: tuple[int, int]  # to train on, to test on
    target: tuple[int, int]
    side: int = 28


MNIST, USPS, DIGITS = (60_000, 10_000), (7_291, 2_007), (1_437, 360)
IMAGES = {
    "digits": Images(DIGITS, DIGITS),
    "mnist-mnistm": Images(MNIST, MNIST),
    "mnist-mnistm-resampled": Images(MNIST, MNIST),
    "mnist-mnistm-imbalanced": Images(MNIST, (36_479, 6_113)),
    "mnistm-mnist": Images(MNIST, MNIST),
    "mnist-worn": Images(MNIST, MNIST),
    "mnist-mnistm-original": Images(MNIST, (59_001, 9_001), side=32),
    "mnist-usps": Images(MNIST, USPS),
    "usps-mnist": Images(USPS, MNIST),
}
PHOTOS = {"amazon": 2_817, "webcam": 795, "dslr": 498}  # of the domains of Office-31


class Collection(NamedTuple):
    """Files that several tasks share."""

    name: str
    files: str
    terms: str  # of those who published it, as far as we know


COLLECTIONS = {  # by the folder of its files
    "": Collection("digits and photos of scikit-learn", "installed with scikit-learn", "photos: CC BY 2.0"),
    "MNIST": Collection("MNIST", "downloaded: 4 files, 12 MB", "CC BY-SA 3.0"),
    "BSDS500": Collection(
        "photos of BSDS500", "downloaded: up to 500 photos, 37 MB", "non-commercial research and education"
    ),
    "usps": Collection("USPS", "downloaded: 2 files, 2 MB", "not stated"),
    "mnist_m": Collection("original MNIST-M", "**yours**: `mnist_m/` or `mnist_m.tar.gz`", "not stated"),
    "office31": Collection("Office-31", "**yours**: `office31/DOMAIN/CLASS/*.jpg`", "research"),
}


@table("tasks", source="")
def tasks_table(_: Results) -> list[str]:
    """All registered tasks."""
    lines = []
    for entry in TASKS.values():
        if entry.pair is None:
            source, target, side = IMAGES[entry.name]
            shown = [f"{before:,} → {after:,}" for before, after in zip(source, target, strict=True)]
            size = f"{side}x{side}"
        else:
            before, after = (PHOTOS[domain] for domain in entry.name.partition(":")[2].split("-"))
            shown, size = [f"{before:,} → {after:,}", "a tenth → all"], "photos"
        needed = ", ".join(COLLECTIONS[folder].name for folder in folders(entry))
        lines.append([f"`{entry.name}`", entry.description, *shown, size, needed])
    return markdown(["task", "what it is", "training images", "test images", "size", "made from"], lines)


@table("collections", source="")
def collections_table(_: Results) -> list[str]:
    """Where the images of tasks come from."""
    return markdown(["images", "files", "terms"], COLLECTIONS.values())


def folders(entry: TaskEntry) -> list[str]:
    """Return the folders of a task's files, by which COLLECTIONS names them."""
    found = [file.name.partition("/")[0] for file in entry.files]
    found += [*entry.unpublished[:1], *([entry.name.partition(":")[0]] if entry.pair else [])]
    return list(dict.fromkeys(found)) or [""]
