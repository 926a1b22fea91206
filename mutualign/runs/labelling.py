"""A few labels for a finished run: the images to label as a table, and what the filled-in table says."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mutualign.data.folders.class_names import class_indices, clean_name
from mutualign.data.folders.tables import read_csv
from mutualign.data.pictures import to_picture
from mutualign.data.task import Task, kept_rows
from mutualign.errors import MutualignError
from mutualign.evaluation.few_labels import (
    LabellingPlan,
    differing_rows,
    drawing_order,
    labelled_accuracy,
    labelled_gain,
    plan_labelling,
)
from mutualign.evaluation.verdict import Range
from mutualign.io.output import check_output, write_output
from mutualign.nn.randomness import derive_seed
from mutualign.runs.checkpoints import Which
from mutualign.runs.estimates import run_outputs
from mutualign.runs.folder import RunFolder
from mutualign.runs.loading import load_task
from mutualign.runs.verdict import fair_baseline

COLUMNS = ("file", "row", "part", "predicted", "label", "images")
TABLE = "labels.csv"
OTHER = "other"  # the label of an image of none of the classes
KIND = "sha256:"  # before the digest of the images, since a spreadsheet takes 1234e567 for a number
SIDE = 224  # pixels to which small images are enlarged, by a whole factor


@dataclass(frozen=True)
class LabelledEvidence:
    """What a few labels say about a run."""

    accuracy: Range
    images: int  # that it was measured on
    gain: Range | None  # over the fair source-only run; None if there is none
    differing: int  # labelled images on which the two differ


def write_labelling(
    folder: RunFolder, data: Path | None, wanted: int, out: Path, *, force: bool = False
) -> tuple[Path, LabellingPlan]:
    """Write the table of up to `wanted` target test images to label, and the images themselves.

    Returns the table's path, and which images it has.

    `data` is the folder of the data files, if it is another one than in training. The table names a user's own images;
    others are written beside it as PNG files. Raises MutualignError if the run is not complete, its images are no
    longer there, or `out` cannot be written.
    """
    config, result = folder.config(), folder.require_result()
    outputs, baseline = run_outputs(folder, "selected"), fair_baseline(folder)
    other = run_outputs(baseline, "selected").predicted if baseline else None
    plan = plan_labelling(outputs.predicted, other, wanted, config.data)
    check_output(out / TABLE, force=force)
    task = load_task_of(folder, data)
    names, places = result.class_names, kept_rows(len(task.target_test))
    shown = task.target_test.images if task.pictures is None else task.pictures.target
    pixels = shown.take(places, derive_seed("kept"))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for part, rows in (("random", plan.random), ("differing", plan.differing)):
        for row in rows.tolist():
            if task.target_test_files:
                file = task.target_test_files[int(places[row])]
            elif pixels.dtype == torch.uint8:
                file = f"{row:05d}.png"
                write_output(out / file, _png(pixels[row]), force=force)
            else:
                file = f"vector {int(places[row])}"
            table.writerow((file, row, part, names[int(outputs.predicted[row])], "", f"{KIND}{_digest(config.data)}"))
    write_output(out / TABLE, text.getvalue().encode(), force=force)
    return out / TABLE, plan


def read_labelling(path: Path, folder: RunFolder, which: Which = "selected") -> LabelledEvidence:
    """Read what a filled-in table says about an epoch of a run; the table may be of another run on the same images.

    The part `differing` counts for the gain if it was drawn from the images on which this run differs from its
    baseline; that of another run is no random sample of these. Raises MutualignError if the table is of other images,
    if a label is not a class, or if an image of a part that was drawn has no label or is missing: leaving out the
    difficult ones would make the estimate too high.
    """
    columns, config = read_csv(path, COLUMNS), folder.config()
    if missing := [name for name in COLUMNS if name not in columns]:
        raise MutualignError(
            f'{path}: no column "{missing[0]}"\n  hint:    fill in the column label of the table that '
            "`mutualign report RUN --label-these 50` writes, and change nothing else"
        )
    if {images.removeprefix(KIND) for images in columns["images"]} - {_digest(config.data)}:
        raise MutualignError(f"{path}: labels of other images than those of {folder.path}")
    given, parts = [clean_name(label) for label in columns["label"]], columns["part"]
    for part in ("random", "differing"):
        members = [at for at, one in enumerate(parts) if one == part]
        empty = [at for at in members if not given[at]]
        if empty and (part == "random" or len(empty) < len(members)):  # nobody has to label the others
            raise MutualignError(
                f'{path}: {len(empty)} image(s) of the part "{part}" have no label, first {columns["file"][empty[0]]}'
                f'\n  hint:    label all of them, an image of no class as "{OTHER}"; otherwise the estimate is too high'
            )
    labelled = [at for at, label in enumerate(given) if label]
    outputs, baseline = run_outputs(folder, which), fair_baseline(folder)
    rows = _rows([columns["row"][at] for at in labelled], len(outputs.target_logits), path)
    if twice := [row for row, count in Counter(rows.tolist()).items() if count > 1]:
        raise MutualignError(
            f"{path}, row: image {twice[0]} is there twice, and would count twice\n"
            "  hint:    leave out one of its lines; label more images with a table of its own, --label-these 100"
        )
    names = list(folder.require_result().class_names)
    labels = torch.tensor(class_indices([given[at] for at in labelled], [*names, *_other(names)], path))
    random, differing = (torch.tensor([parts[at] == part for at in labelled]) for part in ("random", "differing"))
    order = drawing_order(len(outputs.target_logits), config.data)
    if not random.any() or not _is_start(rows[random], order):
        raise MutualignError(
            f'{path}: images of the part "random" are missing\n  hint:    restore the rows of the table, and label all'
        )
    predicted = outputs.predicted
    accuracy = labelled_accuracy(predicted[rows[random]], labels[random])
    if baseline is None:
        return LabelledEvidence(accuracy, int(random.sum()), None, 0)
    theirs = run_outputs(baseline, which).predicted
    own = _is_start(rows[differing], differing_rows(order, rows[random], predicted, theirs))
    used = (random | differing if own else random) & (predicted[rows] != theirs[rows])
    apart = float((predicted != theirs).double().mean())
    gain = labelled_gain(apart, predicted[rows[used]], theirs[rows[used]], labels[used])
    return LabelledEvidence(accuracy, int(random.sum()), gain, int(used.sum()))


def load_task_of(folder: RunFolder, data: Path | None) -> Task:
    """Load the images of a run again. Raises MutualignError if they are not there, or not the same."""
    config = folder.config()
    if (own := config.own_images) is None:
        task = load_task(config.task, config.find_data(data), config.recipe)
    else:
        task = replace(own.load(), name=config.task)
    if not task.is_data(config.data):
        raise MutualignError(f"{folder.path}: its images were changed since\n  hint:    restore them")
    return task


def _png(pixels: UInt8[Tensor, "height width channels"]) -> bytes:
    factor = max(1, SIDE // max(pixels.shape[:2]))
    large = pixels.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    file = io.BytesIO()
    to_picture(large).save(file, "PNG")
    return file.getvalue()


def _rows(texts: Sequence[str], images: int, path: Path) -> Int64[Tensor, " n"]:
    if wrong := [text for text in texts if not text.isdecimal() or int(text) >= images]:
        raise MutualignError(f'{path}, row: "{wrong[0]}" is not the number of an image, 0 to {images - 1}')
    return torch.tensor([int(text) for text in texts], dtype=torch.int64)


def _is_start(rows: Int64[Tensor, " some"], order: Int64[Tensor, " all"]) -> bool:
    """Whether rows, in any order, are the first of an order."""
    return rows.sort().values.equal(order[: len(rows)].sort().values)


def _other(names: Sequence[str]) -> list[str]:
    """The label for images of no class, unless a class has that name; it is never predicted."""
    return [] if OTHER in names else [OTHER]


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:8]
