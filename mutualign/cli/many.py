"""Progress of many runs: a line for each that ends and, on a terminal, bars for all and for those in training."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from mutualign.cli.console import Bars, printable
from mutualign.io.numbers import percent
from mutualign.runs.dispatch import DispatchObserver
from mutualign.runs.folder import RunFolder
from mutualign.runs.jobs import Job
from mutualign.runs.status import count_epochs
from mutualign.runs.work import Outcome, Work

MOST_BARS = 20  # of runs in training; a cluster may train hundreds


class WorkDisplay(Bars, DispatchObserver):
    """A display of work in other processes: what is lost and tried again, and when the engine cannot see its work."""

    console: Console

    def trouble(self, what: str) -> None:
        self.console.print(what or "the engine sees its work again", style="yellow")

    def lost(self, work: Work, why: str) -> None:
        self.console.print(f"{work.name}: {why}; it is tried again", style="yellow")


class ManyRuns(WorkDisplay):
    """Shows how far many runs are, from the epochs in their folders. Use it as a context.

    `on_done` is called after each run that ends.
    """

    def __init__(self, console: Console, jobs: Sequence[Job], on_done: Callable[[], None]) -> None:
        self.console, self.on_done = console, on_done
        self.jobs = {job.name: job for job in jobs}
        self.before = {name: count_epochs(job.path) for name, job in self.jobs.items()}
        self.epochs = dict(self.before)  # recorded so far
        self.open = dict.fromkeys(self.jobs)  # runs that have not ended, in order
        self.began = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._progress.add_task("all runs", total=sum(job.epochs for job in jobs) or 1, note="")
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> ManyRuns:
        self.console.print(f"{len(self.jobs)} runs to train")
        return super().__enter__()

    def tick(self) -> None:
        for name in self.open:
            job = self.jobs[name]
            self.epochs[name] = count_epochs(job.path)
            if name not in self._bars and len(self._bars) < MOST_BARS and job.path.exists():
                self._bars[name] = self._progress.add_task(printable(name), total=job.epochs, note="")
            if name in self._bars:
                self._progress.update(self._bars[name], completed=self.epochs[name])
        note = f"{len(self.jobs) - len(self.open)} of {len(self.jobs)}{self.forecast()}"
        self._progress.update(self._all, completed=sum(self.epochs.values()), note=note)

    def done(self, work: Work, outcome: Outcome) -> None:
        job = self.jobs[work.name]
        self.epochs[work.name] = count_epochs(job.path)
        del self.open[work.name]
        if (bar := self._bars.pop(work.name, None)) is not None:
            self._progress.remove_task(bar)
        if outcome.state == "stopped":
            return
        text = self._result(job) if outcome.state == "complete" else f"{outcome.state}: {outcome.message}"
        number = f"[{len(self.jobs) - len(self.open)}/{len(self.jobs)}]"
        self.console.print(f"{number} {work.name}: {text}{self.forecast()}")
        self.on_done()

    def forecast(self) -> str:
        """Return the rate in runs per minute and the time left, from the epochs trained since the start."""
        trained = sum(self.epochs.values()) - sum(self.before.values())
        seconds = time.monotonic() - self.began
        if trained <= 0 or seconds <= 0:
            return ""
        left = sum(self.jobs[name].epochs - self.epochs[name] for name in self.open)
        per_run = sum(job.epochs for job in self.jobs.values()) / len(self.jobs)
        time_left = datetime.timedelta(seconds=round(left * seconds / trained))
        return f"; {60 * trained / seconds / per_run:.2g} runs/min, {time_left} left"

    def _result(self, job: Job) -> str:
        stage = RunFolder(job.path).require_result().stages[-1]
        target, source = percent(stage.last.target_accuracy), percent(stage.last.source_accuracy)
        return f"target {target}, source {source}, {stage.train_seconds:.0f} s"
