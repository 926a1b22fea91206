"""The registry of tasks: a new dataset is one file with `@register_task`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from mutualign.data.fetch.data_files import DataFile
from mutualign.data.folders.domains import DomainPair, domain_pairs, find_pair
from mutualign.errors import MutualignError, nearest

if TYPE_CHECKING:
    from mutualign.data.folders.folder_task import FolderTask
    from mutualign.data.task import Task
    from mutualign.data.types import LabelledImages, TargetDataset

    Load = Callable[[Path], Task]

FOLDER = "folder:"  # starts the name of a task on a folder with one folder per domain
ALL = ":all"  # ends the name of all pairs of its domains
LONGEST_NUMBER = 12  # digits of a number of images


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
    pair: Callable[[Path], DomainPair] | None = None  # of a task on image files: where they are in the data folder
    size: int | None = None  # of a slice: training images of each domain

    def count_files(self, folder: Path) -> tuple[int, int]:
        """Return how many of the task's files are in a data folder, and how many it needs.

        What cannot be downloaded, and a folder of image files, count as one.
        """
        found = sum(file.find(folder) is not None for file in self.files)
        found += any((folder / name).exists() for name in self.unpublished)
        if self.pair is not None:
            with suppress(MutualignError):
                self.pair(folder)
                found += 1
        return found, len(self.files) + bool(self.unpublished) + (self.pair is not None)

    def folders(self, folder: Path) -> FolderTask | None:
        """Return where a task's image files are, to adapt to and test on the same target; None if it has none."""
        from mutualign.data.folders.folder_task import FolderTask

        if self.pair is None:
            return None
        source, target = self.pair(folder)
        return FolderTask(source, target, target_test=target)


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


def register_lazily(
    name: str, description: str, loader: str, files: tuple[DataFile, ...] = (), unpublished: tuple[str, ...] = ()
) -> None:
    """Make `MODULE:FUNCTION` of this folder available by a task's name; it is imported when the task is loaded.

    So a list of tasks does not wait for torch.
    """

    @register_task(name, description, files, unpublished)
    def load(folder: Path) -> Task:
        return resolve_name(f"{__package__}.{loader}")(folder)  # type: ignore[no-any-return]


def register_domains(name: str, description: str, pair: Callable[[Path], DomainPair]) -> None:
    """Make a task on image files available by name; `pair` says where its domains are in a data folder."""
    TASKS[name] = _domains_entry(name, description, pair)


def folder_entry(name: str) -> TaskEntry:
    """Return the task `folder:ROOT:SOURCE-TARGET`, on the image files of two domains, ROOT/DOMAIN/CLASS/image.jpg."""
    root, _, pair = name.removeprefix(FOLDER).rpartition(":")
    found = find_pair(Path(root), pair)
    return _domains_entry(name, f"{pair} of {root}", lambda data: found)


def _domains_entry(name: str, description: str, pair: Callable[[Path], DomainPair]) -> TaskEntry:
    def load(data: Path) -> Task:
        folders = entry.folders(data)
        assert folders is not None  # noqa: S101 - for the type checker
        return replace(folders.load(), name=name)

    entry = TaskEntry(name, description, (), load, pair=pair)
    return entry


def expand_tasks(names: str) -> tuple[str, ...]:
    """Split names at commas and the blanks around them, but not at those of a folder's path.

    `folder:ROOT:all` becomes all ordered pairs of its domains, and `office31:all` all tasks whose names start with
    `office31:`.
    """
    expanded: list[str] = []
    for name in _split(names):
        if name.startswith(FOLDER) and name.endswith(ALL):
            root = name.removeprefix(FOLDER).removesuffix(ALL)
            expanded += [f"{FOLDER}{root}:{pair}" for pair in domain_pairs(Path(root))]
        elif name.endswith(ALL):
            expanded += [task for task in TASKS if task.startswith(name.removesuffix("all"))] or [name]
        else:
            expanded.append(name)
    return tuple(expanded)


def _split(names: str) -> Iterator[str]:
    """Yield names between commas; one that starts with `folder:` extends to the first comma after existing domains."""
    parts = names.split(",")
    while parts:
        starts, end = [",".join(parts[:end]).strip() for end in range(1, len(parts) + 1)], 1
        if starts[0].startswith(FOLDER):
            end = next((end for end, name in enumerate(starts, start=1) if _is_there(name)), 1)
        yield starts[end - 1]
        del parts[:end]


def _is_there(name: str) -> bool:
    """Whether the domains of a task on a folder exist."""
    with suppress(MutualignError):
        if name.endswith(ALL):
            return bool(domain_pairs(Path(name.removeprefix(FOLDER).removesuffix(ALL))))
        return bool(folder_entry(name))
    return False


def find_task(name: str) -> TaskEntry:
    """Find a task, or a slice of one: `mnist-mnistm@6000` trains on 6,000 images of each domain.

    A slice is spread evenly over the images in their order; test images stay whole. Raises MutualignError for an
    unknown name, naming the nearest, and for a slice of no images.
    """
    if name.startswith(FOLDER):
        return folder_entry(name)
    base, at, size = name.partition("@")
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
        size=int(size),
    )


def take_slice(task: Task, size: int) -> Task:
    """Keep at most `size` training images of each domain; a note says if a domain has fewer."""
    from mutualign.data.types import spread

    domains: dict[str, LabelledImages | TargetDataset] = {"source": task.source_train, "target": task.target_train}
    notes = [f"{domain}: {len(one):,} training images, fewer than {size:,}" for domain, one in domains.items()]
    small = [note for note, one in zip(notes, domains.values(), strict=True) if len(one) < size]
    source, target = (spread(len(one), size) for one in domains.values())
    return replace(
        task,
        name=f"{task.name}@{size}",
        # Part of the identity: editing these words breaks resume for existing runs.
        identity=f"{task.identity}; of the training images {size} of either domain, evenly spread",
        source_train=task.source_train.subset(source),
        target_train=task.target_train.subset(target),
        notes=(*task.notes, *small),
    )
