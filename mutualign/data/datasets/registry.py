"""The registry of tasks: a new dataset is one file with `@register_task`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mutualign.data.fetch.data_files import DataFile
from mutualign.data.folders.domains import domain_pairs, domain_task
from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, spread
from mutualign.errors import MutualignError, nearest

FOLDER = "folder:"  # starts the name of a task on a folder with one folder per domain
LONGEST_NUMBER = 12  # digits of a number of images

Load = Callable[[Path], Task]


@dataclass(frozen=True)
class TaskEntry:
    """A registered task: its name, one line about it, its published files, and a function that loads it.

    `load` takes the data folder. `unpublished` has the names of what cannot be downloaded; one of them must be in the
    data folder.
    """

    name: str
    description: str
    files: tuple[DataFile, ...]
    load: Load
    unpublished: tuple[str, ...] = ()
    folders: Callable[[Path], FolderTask] | None = None  # of a task on image files: where they are

    def count_files(self, folder: Path) -> tuple[int, int]:
        """Return how many of the task's files are in a data folder, and how many it needs.

        What cannot be downloaded, and a folder of image files, count as one.
        """
        found = sum(file.find(folder) is not None for file in self.files)
        found += any((folder / name).exists() for name in self.unpublished)
        if self.folders is not None:
            with suppress(MutualignError):
                self.folders(folder)
                found += 1
        return found, len(self.files) + bool(self.unpublished) + (self.folders is not None)


TASKS: dict[str, TaskEntry] = {}


def register_task(
    name: str, description: str, files: tuple[DataFile, ...] = (), unpublished: tuple[str, ...] = ()
) -> Callable[[Load], Load]:
    """Decorator: make a function that loads a task from a data folder available by the task's name.

    >>> @register_task("nothing", "a task that cannot be loaded")
    ... def load_nothing(folder: Path) -> Task:
    ...     raise MutualignError("no images")
    >>> TASKS.pop("nothing").description
    'a task that cannot be loaded'
    """

    def register(load: Load) -> Load:
        TASKS[name] = TaskEntry(name, description, files, load, unpublished)
        return load

    return register


def register_folders(name: str, description: str, folders: Callable[[Path], FolderTask]) -> None:
    """Make a task on image files available by name; `folders` says where they are in a data folder."""

    def load(data: Path) -> Task:
        return replace(folders(data).load(), name=name)

    TASKS[name] = TaskEntry(name, description, (), load, folders=folders)


def folder_entry(name: str) -> TaskEntry:
    """Return the task `folder:ROOT:SOURCE-TARGET`, on the image files of two domains, ROOT/DOMAIN/CLASS/image.jpg."""
    root, _, pair = name.removeprefix(FOLDER).rpartition(":")
    folders = domain_task(Path(root), pair)

    def load(data: Path) -> Task:
        return replace(folders.load(), name=name)

    return TaskEntry(name, f"{pair} of {root}", (), load, folders=lambda data: folders)


def expand_tasks(names: str) -> tuple[str, ...]:
    """Split names at commas; `folder:ROOT:all` becomes all ordered pairs of its domains."""
    expanded: list[str] = []
    for name in names.split(","):
        if name.startswith(FOLDER) and name.endswith(":all"):
            root = name.removeprefix(FOLDER).removesuffix(":all")
            expanded += [f"{FOLDER}{root}:{pair}" for pair in domain_pairs(Path(root))]
        else:
            expanded.append(name)
    return tuple(expanded)


def find_task(name: str) -> TaskEntry:
    """Find a task, or a slice of one: `mnist-mnistm@6000` trains on 6,000 images of each domain.

    A slice is spread evenly over the images in their order; test images stay whole. Raises MutualignError for an
    unknown name, naming the nearest, and for a slice of no images.
    """
    base, at, size = name.partition("@")
    if base.startswith(FOLDER):
        return folder_entry(base)
    if base not in TASKS:
        raise MutualignError(f'unknown task "{base}"; {nearest(base, TASKS)}')
    entry = TASKS[base]
    if not at:
        return entry
    if not (size.isascii() and size.isdecimal() and len(size) <= LONGEST_NUMBER and int(size) > 0):
        raise MutualignError(f'task "{name[:80]}": expected a number of images after the @, such as {base}@6000')
    return replace(
        entry,
        name=name,
        description=f"{entry.description}; {size} images to train on",
        load=lambda folder: take_slice(entry.load(folder), int(size)),
    )


def take_slice(task: Task, size: int) -> Task:
    """Keep at most `size` training images of each domain; a note says if a domain has fewer."""
    domains: dict[str, LabelledImages | TargetDataset] = {"source": task.source_train, "target": task.target_train}
    notes = [f"{domain}: {len(one):,} training images, fewer than {size:,}" for domain, one in domains.items()]
    small = [note for note, one in zip(notes, domains.values(), strict=True) if len(one) < size]
    source, target = (spread(len(one), size) for one in domains.values())
    return replace(
        task,
        name=f"{task.name}@{size}",
        # Part of the identity: editing these words breaks resume for existing runs.
        identity=f"{task.identity}; of the training images {size} of either domain, evenly spread",
        source_train=LabelledImages(task.source_train.images.subset(source), task.source_train.labels[source]),
        target_train=task.target_train.subset(target),
        notes=(*task.notes, *small),
    )
