"""A user's feature vectors as a task: those of any model, from files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from mutualign.data.folders.class_names import class_indices, refuse_alike
from mutualign.data.folders.mapped_images import SelectedImages
from mutualign.data.folders.vectors import Vectors, read_vectors
from mutualign.data.split import hold_out_tenth
from mutualign.data.task import Task, TaskFolders
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError


def load_vector_task(name: str, files: Mapping[str, Path], folders: TaskFolders) -> Task:
    """Load a task of feature vectors from the files of the parts source, target, source test and target test.

    A vector is an image of one pixel. Without a file for source test, a tenth of each class is held out; without one
    for target test, the target has no labels to evaluate with. Raises MutualignError, with advice, if the files cannot
    make a task.
    """
    parts = {part: read_vectors(path, labelled=part != "target") for part, path in files.items()}
    source, names = parts["source"], _class_names(parts["source"])
    for one in parts.values():
        _require_width(one, source)
    images: dict[str, UnlabelledImages] = {
        part: UnlabelledImages(one.x[:, None, None, :]) for part, one in parts.items()
    }
    labels = {
        part: torch.tensor(class_indices(one.labels, names, one.where))
        for part, one in parts.items()
        if one.labels is not None
    }
    held = torch.zeros(len(source), dtype=torch.bool)
    if "source test" not in parts:
        held = hold_out_tenth(labels["source"], names, source.where)
        images["source test"] = _select(images["source"], held)
        labels["source test"] = labels["source"][held]
    test = "target test" if "target test" in parts else "target"
    return Task(
        name,
        _identity(parts, names),
        names,
        LabelledImages(_select(images["source"], ~held), labels["source"][~held]),
        LabelledImages(images["source test"], labels["source test"]),
        TargetDataset(images["target"], None),
        TargetDataset(images[test], labels.get(test)),
        notes=tuple(_notes(parts, len(labels["source test"]))),
        folders=folders,
    )


def _select(images: UnlabelledImages, marked: Bool[Tensor, " n"]) -> UnlabelledImages:
    """Return the marked images, without a copy."""
    return SelectedImages.of(images, marked.nonzero().flatten().tolist())


def _class_names(source: Vectors) -> tuple[str, ...]:
    """Return the classes in the order of their names. Raises MutualignError if there are fewer than two."""
    names = tuple(sorted(set(source.labels or ())))
    refuse_alike(names, source.where)
    if len(names) < 2:
        raise MutualignError(
            f'{source.where}: only the class "{names[0]}"; a classifier needs at least two\n'
            "  hint:    add rows of another class"
        )
    return names


def _require_width(one: Vectors, source: Vectors) -> None:
    if one.x.shape[1] != source.x.shape[1]:
        raise MutualignError(
            f"{one.where}: vectors of {one.x.shape[1]:,} values; those of {source.where} have {source.x.shape[1]:,}\n"
            "  hint:    compute all vectors with the same model"
        )


def _identity(parts: Mapping[str, Vectors], names: tuple[str, ...]) -> str:
    """What the vectors are. Editing these words breaks resume for existing runs."""
    digests = ", ".join(f"{part} {len(one):,} vectors {_digest(one)}" for part, one in parts.items())
    return f"own vectors of {parts['source'].x.shape[1]} values, {len(names)} classes ({', '.join(names)}): {digests}"


def _digest(one: Vectors) -> str:
    """Hash values and labels; the format of their file does not matter."""
    found = hashlib.sha256(one.x.numpy().data)
    found.update(json.dumps(one.labels).encode())
    return found.hexdigest()[:32]


def _notes(parts: Mapping[str, Vectors], held: int) -> list[str]:
    notes = [f"vectors: {parts['source'].x.shape[1]:,} values each"]
    for part, one in parts.items():
        classes = f" of {len(set(one.labels)):,} classes" if one.labels is not None else ""
        notes.append(f"{part}: {len(one):,} vectors{classes}")
    if "source test" not in parts:
        notes.append(f"source test: {held:,} vectors, held out of the source")
    return notes
