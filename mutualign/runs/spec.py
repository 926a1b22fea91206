"""What identifies a run: the recipe, the data and the seed; and the config that a run folder keeps of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mutualign.data.types import ImageShape
from mutualign.io.typed import encode_json
from mutualign.recipes import Recipe


@dataclass(frozen=True)
class RunSpec:
    """A run to train: two runs with equal specs give the same result, bit for bit, on the same machine."""

    recipe: Recipe
    task: str
    seed: int

    def path(self, out: Path) -> Path:
        """Where the run's folder is: OUT/TASK/RECIPE/seed-SEED. A changed recipe has another name."""
        return out / self.task / self.recipe.name / f"seed-{self.seed}"

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that differ for any two specs."""
        key = [self.recipe.name, self.recipe.digest, self.task, self.seed]
        return hashlib.sha256(encode_json(key).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class RunConfig:
    """What config.toml holds: how a run was started."""

    format: int
    command: str
    task: str
    data: str  # what exactly the images are
    seed: int
    recipe: Recipe
    spec: str = ""  # digest of recipe, task and seed
    images: ImageShape | None = None  # None in runs from before it was recorded, as are the class names
    class_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    own_images: dict[str, Any] | None = None
    plugins: list[str] = field(default_factory=list)  # modules that must be imported before the recipe is read

    def __post_init__(self) -> None:
        if self.images is not None:
            self.images.checked()

    @property
    def run_spec(self) -> RunSpec:
        """What identifies the run."""
        return RunSpec(self.recipe, self.task, self.seed)
