"""The blind test of the evidence without labels: trains the tasks of `blind_tasks.py`, and measures as `evidence.py`.

Settings are chosen on one half of the tasks. The other half is run once, after the settings are committed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import results_file
import torch
import tyro
from blind_summary import summarise
from blind_tasks import BlindTask, Half, Kind, blind_tasks
from evidence import About, measure
from rich.console import Console
from rich.progress import track

from mutualign.data.fetch.data_files import data_folder
from mutualign.runs.folder import RunFolder
from mutualign.runs.jobs import experiment_of, run_of
from mutualign.runs.spec import RunSpec


@dataclass(frozen=True)
class Settings:
    """Train what is not trained yet, then measure; a stopped test resumes where it was."""

    runs: tyro.conf.Positional[Path]
    """where run folders go"""
    half: Half = "tune"
    """the half of the tasks"""
    kinds: tuple[Kind, ...] = ("images", "photos", "vectors")
    data: Path | None = None
    """the data of Office-31. Default: as for `mutualign run`"""
    out: Path = Path("results")
    """where blind.json or tune.json is written; rows of other kinds of tasks in it stay"""


def train(task: BlindTask, runs: Path, data: Path) -> list[RunFolder]:
    """Train the recipes of a task after their baselines, and return all run folders. Complete runs are only opened."""
    recipes = list(dict.fromkeys([*(recipe.source_only() for recipe in task.recipes), *task.recipes]))
    loaded, folders = None, []
    for seed in task.seeds:
        for recipe in recipes:
            spec = RunSpec(recipe, task.name, seed)
            path = spec.path(runs)
            if not (path / "result.json").is_file():
                loaded = loaded or task.load(data)
                experiment_of(spec, loaded, path, run_of(spec, path)).run()
            folders.append(RunFolder.open(path))
    return folders


def write(path: Path, origin: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a results file; it keeps the rows of the kinds that are not among `rows`, and the origin of each kind."""
    old: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = old.get("origins", {}) | dict.fromkeys((row["kind"] for row in rows), origin)
    origins = {kind: found[kind] for kind in get_args(Kind) if kind in found}
    every = [
        row
        for kind, known in origins.items()
        for row in (rows if known is origin else old["rows"])
        if row["kind"] == kind
    ]
    joined = {
        field: separator.join(dict.fromkeys(one[field] for one in origins.values()))
        for field, separator in (("command", "; "), ("commit", ", "), ("hardware", "; "))
    }
    results_file.write(path, joined, every, origins=origins, summary=summarise(every))


def main() -> None:
    """Train, measure, and write the JSON."""
    torch.set_num_threads(1)
    os.nice(10)
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin = results_file.origin()
    tasks = [task for task in blind_tasks() if task.half == settings.half and task.kind in settings.kinds]
    data, rows = data_folder(settings.data), list[dict[str, Any]]()
    for task in track(tasks, f"{settings.half} half", console=Console(stderr=True)):
        about = About(task.name, task.kind, task.half, task.identical)
        rows += measure(about, train(task, settings.runs.absolute() / settings.half, data))
    write(settings.out / f"{settings.half}.json", origin, rows)


if __name__ == "__main__":
    main()
