"""What identifies a run, and the config that a run folder keeps."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from mutualign.data.fetch.data_files import data_folder
from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.task import ARRAYS
from mutualign.data.types import ImageShape
from mutualign.io.typed import encode_json
from mutualign.recipes import Recipe

MOST_NOTES = 20
_SHA256 = "backbone_weights_sha256"  # identifies the weights instead of their path


def folder_name(task: str) -> str:
    """Return a task's name without what the name of a folder may not have on some system.

    >>> folder_name("office31:amazon-webcam")
    'office31-amazon-webcam'
    """
    return re.sub(r"[^\w.@+-]+", "-", task)


@dataclass(frozen=True)
class RunSpec:
    """A run to train: two runs with equal specs and equal data give the same result, bit for bit, on one machine."""

    recipe: Recipe
    task: str
    seed: int

    def path(self, out: Path) -> Path:
        """Where the run's folder is: OUT/TASK/RECIPE/seed-SEED.

        A recipe that is changed by overrides has another name. A folder with other settings is refused by whoever opens
        it for this spec.
        """
        return out / folder_name(self.task) / self.recipe.name / f"seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.recipe.name} on {self.task}, seed {self.seed}"

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of a hash of everything but the recipe's description."""
        left_out = {"description", "backbone_weights" if self.recipe.backbone_weights_sha256 else _SHA256}
        recipe = {key: value for key, value in self.recipe.to_dict().items() if key not in left_out}
        return hashlib.sha256(encode_json([recipe, self.task, self.seed]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunConfig:
    """What config.toml holds: how a run was started."""

    format: int
    command: str
    task: str
    data: str  # exact identity of the images
    seed: int
    recipe: Recipe
    images: ImageShape
    class_names: list[str]
    notes: list[str] = field(default_factory=list)
    own_images: FolderTask | None = None  # where the user's own images are
    data_folder: str = ""  # where the files of the task were, unless in the usual folder
    plugins: list[str] = field(default_factory=list)  # modules that must be imported before the recipe is read

    def __post_init__(self) -> None:
        self.images.checked()

    @property
    def is_of_arrays(self) -> bool:
        """Whether its images were arrays in memory, of a DomainAdapter: no command can load them again."""
        return self.task == ARRAYS

    @property
    def first_notes(self) -> list[str]:
        """The notes on the images, for people: the first of them, and how many more there are."""
        more = len(self.notes) - MOST_NOTES
        return self.notes if more <= 0 else [*self.notes[:MOST_NOTES], f"{more:,} more in config.toml"]

    @property
    def run_spec(self) -> RunSpec:
        """What identifies the run."""
        return RunSpec(self.recipe, self.task, self.seed)

    def find_data(self, option: Path | None = None) -> Path:
        """Return the data folder: the option, else that of the run if it is still there, else the usual one."""
        kept = Path(self.data_folder)
        return kept if option is None and self.data_folder and kept.is_dir() else data_folder(option)
