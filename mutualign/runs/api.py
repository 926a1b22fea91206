"""Runs from Python: `run`, `compare` and `load_run`, with the rules of the commands of these names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path

from mutualign.data.fetch.data_files import data_folder
from mutualign.data.folders.folder_task import FolderTask
from mutualign.errors import MutualignError
from mutualign.evaluation.records import EpochRecord
from mutualign.runs.checkpoints import Which
from mutualign.runs.comparison import Comparison
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result
from mutualign.runs.loading import default_recipe, load_for_all, load_task, recipe_for
from mutualign.runs.predictor import Predictor
from mutualign.runs.rows import Row
from mutualign.runs.spec import RunSpec
from mutualign.runs.statistics import Difference, Summary, differences, summarise

Place = str | PathLike[str]


@dataclass(frozen=True)
class Run:
    """A run on disk: its result, its epochs, and its classifier. `run` and `load_run` return it.

    >>> from tempfile import TemporaryDirectory
    >>> from mutualign import run
    >>> short = ["backbone=mlp", "stages.0.epochs=1"]
    >>> with TemporaryDirectory() as folder:
    ...     done = run("digits@100", "source_only", overrides=short, out=folder)
    ...     classifier = done.predictor("last")
    >>> len(done.epochs), classifier.class_names[:3]
    (1, ('0', '1', '2'))
    """

    path: Path
    epochs: list[EpochRecord]  # oldest first
    result: Result | None  # None while the run is not complete
    notes: list[str]  # on your own images, such as which of them could not be read and are left out

    def predictor(self, epoch: Which = "selected", accelerator: str = "auto") -> Predictor:
        """Load the classifier, at the epoch selected without labels or at the last one.

        Raises MutualignError if the run is not complete, or its weights are damaged.
        """
        return Predictor.load(self.path, epoch, accelerator)


@dataclass(frozen=True)
class Compared:
    """The rows of a comparison, one for each run and way of choosing the epoch. `compare` returns it.

    >>> from mutualign import Compared
    >>> Compared([]).summaries
    []
    """

    rows: list[Row]

    @property
    def summaries(self) -> list[Summary]:
        """Means over seeds with 95 % intervals, by task and recipe."""
        return summarise(self.rows)

    @property
    def differences(self) -> list[Difference]:
        """Target accuracy against the first recipe of each task, paired by seed; empty without target labels."""
        return differences(self.rows)


def load_run(path: Place) -> Run:
    """Read a run folder. Raises MutualignError if it is missing, damaged, or its format is unsupported.

    >>> from tempfile import TemporaryDirectory
    >>> from mutualign import load_run, run
    >>> short = ["backbone=mlp", "stages.0.epochs=1"]
    >>> with TemporaryDirectory() as folder:
    ...     path = run("digits@100", "source_only", overrides=short, out=folder).path
    ...     found = load_run(path)
    >>> found.result.task, len(found.epochs)
    ('digits@100', 1)
    """
    folder = RunFolder.open(Path(path))
    return Run(folder.path, folder.metrics(), folder.result(), folder.config().notes)


def run(
    task: str | None = None,
    recipe: Place | None = None,
    *,
    source: Place | None = None,
    target: Place | None = None,
    target_test: Place | None = None,
    seed: int = 0,
    overrides: str | Iterable[str] = (),
    out: Place = "runs",
    data: Place | None = None,
    accelerator: str = "auto",
) -> Run:
    """Train a recipe on a task, or on your own images, in the folder OUT/TASK/RECIPE/seed-SEED.

    A finished run of the same settings is read instead, and one that was stopped is resumed. `task` is a name
    (`mutualign data list`), by default `digits`; `source`, `target` and `target_test` are folders, tables or files of
    feature vectors in its place. `recipe` is a name or the path of a .toml file; `overrides` set its fields, such as
    "stages.0.epochs=5". `data` is the folder of data files; `accelerator` is "cpu", "cuda", "mps", or "auto": cuda if
    there is such a GPU, else cpu. Raises MutualignError for wrong names, settings or images.

    >>> from tempfile import TemporaryDirectory
    >>> short = ["backbone=mlp", "stages.0.epochs=1"]
    >>> with TemporaryDirectory() as folder:
    ...     done = run("digits@100", "source_only", overrides=short, out=folder)
    >>> done.result.stages[0].last.epoch
    1
    """
    own = _own_images(task, source, target, target_test)
    chosen = recipe_for(own, str(recipe or default_recipe(own)), _several(overrides))
    name = (task or "digits") if own is None else own.name
    load = partial(load_task, data=data_folder(Path(data) if data else None), recipe=chosen, own=own)
    Comparison((chosen,), (name,), (seed,), Path(out)).run(load, accelerator=accelerator)
    return load_run(RunSpec(chosen, name, seed).path(Path(out)))


def compare(
    recipes: Place | Iterable[Place],
    tasks: str | Iterable[str] = "digits",
    *,
    seeds: int = 3,
    overrides: str | Iterable[str] = (),
    out: Place = "runs",
    data: Place | None = None,
    accelerator: str = "auto",
) -> Compared:
    """Train every recipe on every task with the seeds 0, 1, ..., and return one row per run and choice of the epoch.

    The first recipe is the baseline of the differences. Folders and settings are as in `run`. A single recipe, task or
    override may be given as it is.

    >>> from tempfile import TemporaryDirectory
    >>> short, names = ["backbone=mlp", "stages.0.epochs=1"], ["source_only", "coral"]
    >>> with TemporaryDirectory() as folder:
    ...     found = compare(names, ["digits@100"], seeds=1, overrides=short, out=folder)
    >>> len(found.summaries), len(found.differences)
    (2, 1)
    """
    chosen = tuple(recipe_for(None, recipe, _several(overrides)) for recipe in _several(recipes))
    if not chosen:
        raise MutualignError("a comparison needs at least one recipe")
    load = partial(load_for_all, data=data_folder(Path(data) if data else None), recipes=chosen)
    comparison = Comparison(chosen, _several(tasks), tuple(range(seeds)), Path(out))
    return Compared(comparison.run(load, accelerator=accelerator))


def _several(given: Place | Iterable[Place]) -> tuple[str, ...]:
    """Return names, of which a single one may be given as it is."""
    return (str(given),) if isinstance(given, str | PathLike) else tuple(map(str, given))


def _own_images(
    task: str | None, source: Place | None, target: Place | None, target_test: Place | None
) -> FolderTask | None:
    """Return the user's own images. Raises MutualignError unless either a task or source and target are given."""
    if source is None and target is None and target_test is None:
        return None
    if task is not None or source is None or target is None:
        raise MutualignError(
            "run needs either a task, or source and target\n  hint:    run(source=FOLDER, target=FOLDER)"
        )
    return FolderTask(Path(source), Path(target), target_test=Path(target_test) if target_test else None)
