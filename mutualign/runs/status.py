"""What state the runs below a folder are in: complete, running, stopped, failed or unreadable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mutualign.errors import MutualignError, first_line
from mutualign.runs.folder import RunFolder
from mutualign.runs.lock import last_owner, owner_of
from mutualign.runs.spec import RunConfig
from mutualign.runs.sweeps.study import Study


@dataclass(frozen=True)
class RunStatus:
    """One run: its state, how far it is, and what there is to say about it."""

    path: Path
    state: Literal["complete", "running", "stopped", "failed", "unreadable"]
    epochs: int  # recorded so far
    planned: int
    config: RunConfig | None  # None of an unreadable run
    detail: str = ""  # who trains it, what ended it, or why it cannot be read

    @property
    def can_resume(self) -> bool:
        """Whether `mutualign run --resume` should continue it."""
        known = self.config is not None and not self.config.is_of_arrays
        return self.state in ("stopped", "failed") and known and not self.is_of_sweep

    @property
    def is_of_sweep(self) -> bool:
        """Whether it is in a study, as STUDY/runs/TASK/RECIPE/seed-N: the sweep stops the runs of poor trials early."""
        return any(map(Study.is_study, self.path.absolute().parents[3:4]))


def find_runs(folder: Path) -> list[Path]:
    """Return the run folders below a folder, or the folder itself if it is one, in the order of their names."""
    return sorted(_find(folder))


def _find(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if "config.toml" in files:
            folders.clear()  # a run holds no other run
            yield Path(place)


def status_of(path: Path) -> RunStatus:
    """Look at a run folder. Nothing is raised for one that is damaged or needs a plugin; the detail says so."""
    epochs = count_epochs(path)
    try:
        run = RunFolder.open(path)
        config = run.config()
        result = run.result()
    except MutualignError as error:
        return RunStatus(path, "unreadable", epochs, 0, None, first_line(error))
    planned = sum(stage.epochs for stage in config.recipe.stages)
    if result is not None:
        return RunStatus(path, "complete", epochs, planned, config)
    if owner := owner_of(path):
        return RunStatus(path, "running", epochs, planned, config, str(owner))
    if failure := run.failure():
        return RunStatus(path, "failed", epochs, planned, config, failure)
    dead = last_owner(path)
    return RunStatus(path, "stopped", epochs, planned, config, f"killed: {dead}" if dead else "")


def count_epochs(path: Path) -> int:
    """Return the number of recorded epochs of a run, without reading them."""
    try:
        return (path / "metrics.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0
