"""The command line: parse, call, print."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from mutualign.comparison import Comparison, Row, differences, run_path, save_results, summarise
from mutualign.data.download import damaged, data_folder, require
from mutualign.data.tasks import TASKS, find_task
from mutualign.display import (
    ProgressDisplay,
    difference_tables,
    estimates_table,
    selection_table,
    show_run,
    summary_tables,
)
from mutualign.errors import MutualignError
from mutualign.estimates import estimate_runs
from mutualign.evidence.selection import rank
from mutualign.evidence.validators import DEFAULT_VALIDATOR
from mutualign.experiment import Experiment
from mutualign.recipes import load_recipe
from mutualign.training.loop import Stopped
from mutualign.training.runs import RunFolder

DESCRIPTION = """Adapt an image classifier to images without labels, and see whether it helped.

Begin with: mutualign compare --task digits --seeds 1
"""

ALARMED = 3  # the exit status of --strict where an alarm was raised
DataOption = Path | None
SetOption = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")]


@dataclass(frozen=True)
class Run:
    """Train one recipe on one task, or go on with a run that was stopped.

    Example: mutualign run --recipe fast --task digits
    """

    recipe: Annotated[str, tyro.conf.arg(aliases=["-r"])] = "best"
    """Name of a recipe, or the path of a recipe's .toml file. The project's own: best, and fast, which stops early.
    Published: source_only, dann, mani."""
    task: Annotated[str, tyro.conf.arg(aliases=["-t"])] = "digits"
    """What to adapt from and to; `mutualign data list` shows all."""
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
    strict: bool = False
    """Exit with status 3 if the audit raises an alarm."""

    def main(self, console: Console) -> None:
        stop, folder, display = StopSignal(), data_folder(self.data), ProgressDisplay(console)
        settings = {"accelerator": self.accelerator, "display": display, "should_stop": stop}
        if self.resume:
            experiment = Experiment.resume(self.resume, folder, **settings)
        else:
            recipe, task = load_recipe(self.recipe, self.set), find_task(self.task)
            path = run_path(self.out, self.task, recipe, self.seed)
            RunFolder.refuse_existing(path)
            experiment = Experiment.start(recipe, task.load(folder), self.seed, path, **settings)
        path = experiment.folder.path
        with display, stop.leaving(f"mutualign run --resume {shlex.quote(str(path))}"):
            result = experiment.run()
        show_run(console, RunFolder.open(path))
        if self.strict and result.get("alarms"):
            raise SystemExit(ALARMED)


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
        tasks = tuple(self.task.split(","))
        for task in tasks:
            find_task(task)
        comparison = Comparison(recipes, tasks, tuple(range(self.seeds)), self.out)
        stop, display = StopSignal(), ProgressDisplay(console)
        command = shlex.join(["mutualign", *sys.argv[1:]])

        def keep(rows: list[Row]) -> None:
            if self.save:
                save_results(self.save, command, rows)

        settings = {"accelerator": self.accelerator, "display": display, "should_stop": stop}
        with display, stop.leaving(command):
            rows = comparison.run(data_folder(self.data), keep, **settings)
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


@dataclass(frozen=True)
class Show:
    """Print a run's config, its curves epoch by epoch, and its result."""

    run: tyro.conf.Positional[Path]
    """A run folder, such as runs/digits/mani/seed-0."""

    def main(self, console: Console) -> None:
        show_run(console, RunFolder.open(self.run))


@dataclass(frozen=True)
class Select:
    """Rank runs of one task, and their epochs, by a label-free score: which to keep when there are no target labels.

    Example: mutualign select runs/digits/*/seed-0
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, complete or not."""
    validator: str = DEFAULT_VALIDATOR
    """The score, always higher for better: combined, information_maximisation, target_entropy, nuclear_norm,
    soft_neighbourhood_density, class_ami, mano, deep_embedded_validation, source_accuracy, coverage,
    augmentation_consistency."""

    def main(self, console: Console) -> None:
        if not self.runs:
            raise MutualignError("name one or more run folders, such as runs/digits/*/seed-0")
        folders = {str(path): RunFolder.open(path) for path in self.runs}
        tasks = dict.fromkeys(folder.config()["data"] for folder in folders.values())
        if len(tasks) > 1:
            listed = "\n".join(f"  data     {identity}" for identity in tasks)
            raise MutualignError(f"the runs are of different data; scores compare only on the same\n{listed}")
        choices = rank({name: folder.metrics() for name, folder in folders.items()}, self.validator)
        console.print(selection_table(choices, self.validator))


@dataclass(frozen=True)
class Estimate:
    """Estimate what runs of one task reach on its target test images, without looking at a target label.

    Give all seeds of a recipe, better of several recipes: the interval comes from how far independent runs agree.
    Example: mutualign estimate runs/digits/*/seed-*
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Complete run folders."""
    epoch: Literal["selected", "last"] = "selected"
    """The epoch that was selected without labels, or the last one."""

    def main(self, console: Console) -> None:
        if not self.runs:
            raise MutualignError("name one or more run folders, such as runs/digits/*/seed-*")
        found = estimate_runs([RunFolder.open(path) for path in self.runs], self.epoch)
        console.print(estimates_table(found))
        if any(name != "consensus" for name, _ in (run.best for run in found)):
            console.print(
                "only a rough guess: train two seeds or more of the best recipe, and name all runs, for an interval to "
                "trust (mutualign compare --seeds 3)"
            )


@dataclass(frozen=True)
class Report:
    """Write a report of a run, or of all runs below a folder: one HTML file that needs no network.

    Example: mutualign report runs/digits/fast/seed-0
    """

    path: tyro.conf.Positional[Path]
    """A run folder, or a folder above several, such as runs/digits."""
    out: Path | None = None
    """The HTML file. Default: report.html in that folder."""
    png: Path | None = None
    """Also write every figure as a PNG file, for a paper, into this folder."""

    def main(self, console: Console) -> None:
        from mutualign.report.html import write_report  # matplotlib takes a second to import

        with console.status("drawing figures"):
            written = write_report(self.path, self.out, self.png)
        console.print(f"{written} ({written.stat().st_size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Data:
    """List the tasks, fetch the files that a task needs, or verify those that are there."""

    action: tyro.conf.Positional[Literal["list", "fetch", "verify"]]
    """list: every task and how many of its files are there. fetch: download what is missing, checked against its
    SHA-256. verify: check what is there."""
    task: tyro.conf.Positional[str] = "all"
    """One task, or all."""
    data: DataOption = None
    """Folder of the data files. Default: $MUTUALIGN_DATA, else the user's cache folder."""

    def main(self, console: Console) -> None:
        folder = data_folder(self.data)
        names = list(TASKS) if self.task == "all" else [self.task]
        console.print(f"data folder: {folder}", highlight=False, soft_wrap=True)
        bad = []
        for name in names:
            entry = find_task(name)
            if self.action == "fetch":
                require(entry.files, name, folder)
            there = sum(file.find(folder) is not None for file in entry.files)
            line = f"  {name:<24} {there} of {len(entry.files)} files  {entry.description}"
            if self.action == "verify":
                bad += (broken := damaged(entry.files, folder))
                line = f"  {name:<24} {there} of {len(entry.files)} files, {len(broken)} damaged"
            console.print(line, highlight=False, soft_wrap=True)
        if bad:
            listed = "\n".join(f"  damaged  {path}" for path in dict.fromkeys(bad))
            raise MutualignError(f"damaged files\n{listed}\n  do       delete them and run `mutualign data fetch`")


class StopSignal:
    """Ctrl-C and SIGTERM ask the training to stop after the step; the second one stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def __call__(self) -> bool:
        return self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number

    @contextmanager
    def leaving(self, command: str) -> Iterator[None]:
        """Around training: when it was stopped, say how to go on, and exit with 128 + the signal's number."""
        try:
            yield
        except Stopped:
            print(f"mutualign: stopped, and saved where it was; go on with: {command}", file=sys.stderr)
            raise SystemExit(128 + (self.received or signal.SIGINT)) from None


def main() -> None:
    """Entry point of the `mutualign` command."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    commands: dict[str, Callable[..., Any]] = {
        "run": Run,
        "compare": Compare,
        "select": Select,
        "estimate": Estimate,
        "report": Report,
        "show": Show,
        "data": Data,
    }
    try:
        command = tyro.extras.subcommand_cli_from_dict(commands, prog="mutualign", description=DESCRIPTION)
        command.main(Console())
    except MutualignError as error:
        print(f"mutualign: {error}", file=sys.stderr)
        raise SystemExit(2) from None
