"""Options that several commands share."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from mutualign.cli.names import recipe_names, registered
from mutualign.errors import MutualignError

if TYPE_CHECKING:
    from mutualign.data.folders.folder_task import FolderTask

MISSING = 1  # exit status if some of many runs are missing
ALARMED = 3  # exit status of --strict after an alarm
TASK = "digits"  # without --task and --source
MOST_JOBS = 10_000
MOST_SEEDS, MOST_CHECKPOINTS, MOST_PROCESSES, LARGEST_SEED = 10_000, 10_000, 100_000, 2**31 - 1

AcceleratorOption = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    tyro.conf.arg(
        help="What to compute on: cuda (also ROCm), cpu, or mps, the GPU of a Mac, which is not tested. auto: cuda if "
        "there is such a GPU, else cpu."
    ),
]
DataOption = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="FOLDER",
        help="Folder of the data files.",
        help_behavior_hint="(default: $MUTUALIGN_DATA, else the user's cache folder)",
    ),
]
EpochOption = Annotated[
    Literal["selected", "last"], tyro.conf.arg(help="The epoch selected without target labels, or the last one.")
]
TaskOption = Annotated[
    str | None,
    tyro.conf.arg(
        aliases=["-t"],
        metavar="NAME",
        help="Source and target by the name of a task; `mutualign data list` shows all. NAME@6000 trains on 6,000 "
        "images of each domain.",
        help_behavior_hint=f"(default: {TASK})",
    ),
]
ForceOption = Annotated[
    bool,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.arg(help="Replace an output file that exists. Finished runs stay as they are."),
]
RunArgument = Annotated[
    tyro.conf.Positional[Path],
    tyro.conf.arg(metavar="RUN", help="A run folder, such as runs/digits/mani/seed-0."),
]
RunsArgument = Annotated[
    tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...", help="Run folders of one task.")
]
# Options that add up if they are repeated: tyro alone would keep only the last.
RepeatableNames = tyro.conf.UseAppendAction[tuple[str, ...]]  # --task digits --task stripes
RepeatableWords = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]  # --set a=1 b=2 --set c=3; `flat` joins them
SetOption = Annotated[
    RepeatableWords,
    tyro.conf.arg(
        metavar="KEY=VALUE ...",
        help="Change fields of the recipe, such as: --set stages.0.epochs=5 precision=float32. A run's config.toml "
        "has all fields.",
    ),
]
StrictOption = Annotated[
    bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help=f"Exit with status {ALARMED} if a result has an alarm.")
]
BackboneOption = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help=f"Another network than the recipe's: {', '.join(registered('backbone'))}, or timm:NAME for any network of "
        "timm. In a recipe for photos, a network with pretrained weights stays frozen and computes features.",
    ),
]
WeightsOption = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="WEIGHTS",
        help="Weights that a network of timm starts from: `pretrained` for those of timm's hub, or the path of a "
        ".safetensors file.",
        help_behavior_hint="(default: random, unless the recipe needs pretrained ones)",
    ),
]
FinetuneOption = Annotated[
    bool,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.arg(
        help="Train all layers of the pretrained network on random crops of the photos, instead of computing features "
        "once. Meant for a GPU."
    ),
]
Place = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
RECIPES = (
    "A run's config.toml stands for its recipe. "
    "To begin with: photos for photos, fast or best for digits and drawings, source_only for no adaptation. All: "
    f"{', '.join(recipe_names())}."
)


@dataclass(frozen=True)
class OwnImagesOptions:
    """Your own images instead of a task."""

    source: Place = None
    """Labelled images: a folder with one folder per class, or a .csv or .parquet table with the columns path and label.
    Or feature vectors of any model, in .npz or .parquet, with X [n, features] and y [n]."""
    target: Place = None
    """Images without labels: a folder, flat or nested, or a table with the column path. Or feature vectors, X in .npz,
    .npy or .parquet."""
    source_test: Place = None
    """More labelled source images, to measure source accuracy on. Default: a tenth of each class is held out."""
    target_test: Place = None
    """A few labelled target images, to measure target accuracy on. They are never trained on."""
    image_size: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Side of the square that your images are scaled to. Default: the median shorter side, 224 at most. A network that
    computes features of photos has a size of its own."""
    on_bad_image: Literal["skip", "fail"] = "skip"
    """What to do with images that cannot be read: leave out up to 1 % of them, or stop."""

    def images(self, task: str | None) -> FolderTask | None:
        """Return the user's own images, None without these options.

        Raises MutualignError if only half is given, or a task too.
        """
        from mutualign.data.folders.folder_task import FolderTask

        if self.source is not None and self.target is not None:
            if task is not None:
                raise MutualignError(f"--task {task} and --source are two sources\n  hint:    leave one of them out")
            return FolderTask(
                self.source, self.target, self.source_test, self.target_test, self.image_size, self.on_bad_image
            )
        if any((self.places(), self.image_size)):
            raise MutualignError("own images need both --source and --target\n  hint:    give both, or --task alone")
        return None

    def places(self) -> dict[str, Path]:
        """Return the folders and tables that are given, by option."""
        places = {name: getattr(self, name) for name in ("source", "target", "source_test", "target_test")}
        return {name: place for name, place in places.items() if place is not None}


OwnOption = Annotated[OwnImagesOptions, tyro.conf.OmitArgPrefixes]


@dataclass(frozen=True)
class EngineOptions:
    """How many runs are trained at a time, and where."""

    jobs: Annotated[int | None, tyro.conf.arg(aliases=["-j"], metavar="N")] = None
    """How many runs to train at a time, each in a process with its share of the threads. Default: 1, in this process;
    on a cluster, as many as it takes."""
    engine: Annotated[
        str,
        tyro.conf.arg(
            metavar="NAME",
            help=f"What trains them: {', '.join(registered('engine'))}. All but local take a cluster whose machines "
            "share a disk.",
        ),
    ] = "local"
    engine_options: Annotated[
        RepeatableWords,
        tyro.conf.arg(
            metavar="KEY=VALUE ...",
            help="Settings of the engine, such as: --engine dask --engine-options address=tcp://head:8786",
        ),
    ] = ()

    @property
    def in_this_process(self) -> bool:
        """Whether runs are trained one after another in this process."""
        if self.jobs is not None:
            require_between("--jobs", self.jobs, 1, MOST_JOBS)
        return self.engine == "local" and self.jobs in (None, 1) and not self.engine_options


EngineOption = Annotated[EngineOptions, tyro.conf.OmitArgPrefixes]


def flat(words: RepeatableWords) -> tuple[str, ...]:
    """Return the words of all uses of an option."""
    return tuple(chain.from_iterable(words))


def given_options(command: Any, *names: str) -> list[str]:
    """Return the options of a command that differ from their defaults, as words for another command.

    `names` are fields of the command; all of them if there are none. Groups of options are taken apart.
    """
    words: list[str] = []
    for one in fields(command):
        value, option = getattr(command, one.name), f"--{one.name.replace('_', '-')}"
        if names and one.name not in names:
            continue
        if is_dataclass(value):
            words += given_options(value)
        elif value is True:
            words.append(option)
        elif value != one.default:
            for use in value if isinstance(value, tuple) else (value,):
                words += [option, *(use if isinstance(use, tuple) else [str(use)])]
    return words


def require_between(option: str, value: int | float, low: int | float, high: int | float) -> None:
    """Raise MutualignError unless a number is in a sensible range."""
    if not low <= value <= high:
        raise MutualignError(f"{option} must be from {low:,} to {high:,}, got {str(value)[:40]}")


def require_place(option: str, path: Path) -> None:
    """Raise MutualignError for a folder that cannot be: a name that no file system takes, or below a file."""
    if any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise MutualignError(f"{option}: a name in {str(path)[:60]}... is longer than 255 bytes; choose a shorter one")
    if "\0" in str(path) or any("\ud800" <= character <= "\udfff" for character in str(path)):
        raise MutualignError(f"{option} {str(path)!r}: not UTF-8 text; choose another name")
    place = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not place.is_dir():
        raise MutualignError(f"{option} {path}: {place} is not a folder\n  hint:    choose another {option}")
