"""`run` and `compare`: the commands that train."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from mutualign.cli.options import ALARMED, DataOption, OwnImagesOptions, OwnOption, SetOption, StopSignal
from mutualign.cli.terminal import ProgressDisplay, difference_tables, show_run, summary_tables
from mutualign.data.datasets import find_task
from mutualign.data.fetch.data_files import data_folder
from mutualign.data.task import Task
from mutualign.errors import MutualignError
from mutualign.recipes import load_recipe
from mutualign.runs.comparison import Comparison, Row, differences, run_path, save_results, summarise
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.training.callbacks import CheckpointPolicy
from mutualign.training.distributed import ONE, Processes


@dataclass(frozen=True)
class Run:
    """Train one recipe on one task, or on your own images, or go on with a run that was stopped.

    Example: mutualign run --recipe fast --task digits

    Your own images: mutualign run --source photos/labelled --target photos/unlabelled
    """

    recipe: Annotated[str, tyro.conf.arg(aliases=["-r"])] = "best"
    """Name of a recipe, or the path of a recipe's .toml file. The project's own: best, and fast, which stops early.
    Published: source_only, dann, mani."""
    task: Annotated[str, tyro.conf.arg(aliases=["-t"])] = "digits"
    """What to adapt from and to; `mutualign data list` shows all."""
    own_images: OwnOption = field(default_factory=OwnImagesOptions)
    backbone: str | None = None
    """The network instead of the recipe's: mani_cnn, two_block_cnn; small_resnet for images above 48 pixels; mlp;
    timm:NAME for any network of timm, whose weights `--set backbone_weights=FILE.safetensors` gives."""
    seed: int = 0
    """Decides everything that is random."""
    set: SetOption = ()
    """Change fields of the recipe, for example: --set stages.0.epochs=5 precision=float32"""
    data: DataOption = None
    """Folder of the data files. Default: $MUTUALIGN_DATA, else the user's cache folder."""
    out: Path = Path("runs")
    """Where run folders go: OUT/TASK/RECIPE/seed-SEED."""
    resume: Path | None = None
    """Go on with this run folder, bit for bit as if it had not been stopped. All else but --data is read from it."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """What to train on."""
    devices: int | None = None
    """Train in so many processes, one a GPU (or so many on one CPU), which share the work on each batch: the result is
    the same, up to rounding. Default: 1, or as many as torchrun has started."""
    nodes: int | None = None
    """Computers that train together, each with so many devices; start this on each of them, by Slurm for example."""
    save_every: float = 60.0
    """Seconds between the checkpoints that a stopped or killed run goes on from; one is also saved after each epoch."""
    keep: int = 2
    """How many of these checkpoints to keep: where the newest is damaged, the one before it is used."""
    strict: bool = False
    """Exit with status 3 if the audit raises an alarm."""

    def main(self, console: Console) -> None:
        processes = self._processes()
        if not processes.first:
            console = Console(quiet=True)
        stop, folder, display = StopSignal(processes.first), data_folder(self.data), ProgressDisplay(console)
        settings: dict[str, Any] = {
            "accelerator": self.accelerator,
            "display": display,
            "should_stop": stop,
            "saving": CheckpointPolicy(self.save_every, self.keep),
            "processes": processes,
        }
        if self.resume:
            experiment = Experiment.resume(self.resume, folder, **settings)
        else:
            recipe, own = load_recipe(self.recipe, self._overrides()), self.own_images.images()
            entry = find_task(self.task)
            name = self.task if own is None else own.name
            path = run_path(self.out, name, recipe, self.seed)
            if processes.first:
                RunFolder.refuse_existing(path)
            task = entry.load(folder) if own is None else own.load()
            for note in task.notes:
                console.print(note, highlight=False, markup=False, soft_wrap=True)
            experiment = Experiment.start(recipe, task, self.seed, path, **settings)
        path = experiment.folder.path
        with display, stop.leaving(f"mutualign run --resume {shlex.quote(str(path))}"):
            result = experiment.run()
        if not processes.first:
            return
        show_run(console, RunFolder.open(path))
        if self.strict and result.get("alarms"):
            raise SystemExit(ALARMED)

    def _processes(self) -> Processes:
        started = Processes.started()
        asked = Processes(self.devices or started.devices, self.nodes or started.nodes)
        if min(asked) < 1:
            raise MutualignError(f"at least one device and one node are needed, got {self.devices} and {self.nodes}")
        if ONE != started != asked:
            raise MutualignError(
                f"torchrun has started {started.devices} processes on each of {started.nodes} node(s), and "
                f"{asked.devices} on {asked.nodes} are asked for\n  do       leave --devices and --nodes out"
            )
        return asked

    def _overrides(self) -> tuple[str, ...]:
        return self.set if self.backbone is None else (*self.set, f"backbone={self.backbone}")


@dataclass(frozen=True)
class Compare:
    """Train recipes on tasks with several seeds, and print a table with means and 95 % intervals.

    What is done already is skipped; a comparison that was stopped goes on where it was.
    Example: mutualign compare --recipes source_only,dann,mani --task digits --seeds 3
    """

    recipes: Annotated[str, tyro.conf.arg(aliases=["-r"])] = "source_only,dann,mani,fast,best"
    """Recipes by name or path, with commas between."""
    task: Annotated[str, tyro.conf.arg(aliases=["--tasks", "-t"])] = "digits"
    """Tasks, with commas between; `mutualign data list` shows all."""
    own_images: OwnOption = field(default_factory=OwnImagesOptions)
    seeds: int = 3
    """How many seeds: 0, 1, 2, ..."""
    set: SetOption = ()
    """Change fields of every recipe, for example: --set precision=float32"""
    data: DataOption = None
    """Folder of the data files. Default: $MUTUALIGN_DATA, else the user's cache folder."""
    out: Path = Path("runs")
    """Where run folders go: OUT/TASK/RECIPE/seed-SEED."""
    save: Path | None = None
    """Keep the rows in this JSON file, written after each run."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """What to train on."""
    strict: bool = False
    """Exit with status 3, when all is trained, if the audit of any run raises an alarm."""

    def main(self, console: Console) -> None:
        recipes = tuple(load_recipe(name, self.set) for name in self.recipes.split(","))
        own, folder = self.own_images.images(), data_folder(self.data)
        tasks = tuple(self.task.split(",")) if own is None else (own.name,)
        if own is None:
            for task in tasks:
                find_task(task)

        def load(name: str) -> Task:
            return find_task(name).load(folder) if own is None else own.load()

        comparison = Comparison(recipes, tasks, tuple(range(self.seeds)), self.out)
        stop, display = StopSignal(), ProgressDisplay(console)
        command = shlex.join(["mutualign", *sys.argv[1:]])

        def keep(rows: list[Row]) -> None:
            if self.save:
                save_results(self.save, command, rows)

        settings = {"accelerator": self.accelerator, "display": display, "should_stop": stop}
        with display, stop.leaving(command):
            rows = comparison.run(load, keep, **settings)
        for table in (*summary_tables(summarise(rows)), *difference_tables(differences(rows))):
            console.print(table)
        alarmed = [row for row in rows if row.get("alarms")]
        for row in alarmed:
            where = f"{row['recipe']} on {row['task']}, seed {row['seed']}"
            console.print(f"alarm: {where}: {', '.join(row['alarms'])}", style="yellow", soft_wrap=True)
        console.print(f"run folders: {self.out}/TASK/RECIPE/seed-N", highlight=False)
        last = run_path(self.out, tasks[-1], recipes[-1], self.seeds - 1)
        console.print(f"next, for example: mutualign show {last}", highlight=False)
        if self.strict and alarmed:
            raise SystemExit(ALARMED)
