"""Progress of training: a live bar per stage on a terminal, one line per epoch elsewhere; and alarms."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from mutualign.cli.console import Bars, printable
from mutualign.data.task import Task
from mutualign.evaluation.records import Alarm, EpochRecord
from mutualign.io.numbers import percent
from mutualign.recipes import Recipe
from mutualign.runs.observer import Observer

WORTH_SAYING = 60.0  # seconds of training from which an estimate is printed
WIDE, NARROW = 100, 60  # columns of a terminal from which bar and time, and source accuracy, have room
TARGET, BOTH = "target unknown", "target unknown, source 100.0 %"  # the longest texts behind the percentage


class ProgressDisplay(Bars, Observer):
    """Shows the progress of runs. Use it as a context."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.title, self.stages = "", 1
        room = console.width - 1 - (len(BOTH) if console.width >= NARROW else len(TARGET)) - len(" 100 % ")
        name = Column(no_wrap=True, overflow="ellipsis", max_width=max(8, room))
        wide = console.width >= WIDE
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=name),
            *([BarColumn(bar_width=12)] if wide else []),
            TextColumn("{task.percentage:>3.0f} %"),
            *([TimeRemainingColumn()] if wide else []),
            TextColumn("{task.fields[latest]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._bars: dict[int, Any] = {}  # of the run in training, by stage
        self.explained: set[str] = set()  # alarms that were printed

    def begin(self, recipe: Recipe, task: str, seed: int) -> None:
        self._turn_bars_into_lines()  # a terminal has no room for the bars of many runs
        self.title, self.stages = printable(f"{recipe.name} on {task}, seed {seed}"), len(recipe.stages)

    def expects(self, seconds: float) -> None:
        if seconds > WORTH_SAYING:
            line = f"{self.title}: about {duration(seconds)} of training on this CPU; Ctrl-C saves, --resume resumes"
            self.console.print(line)

    def step(self, stage: int, done: int, total: int) -> None:
        if stage not in self._bars:
            description = self.title if self.stages == 1 else f"{self.title}, {stage + 1}/{self.stages}"
            self._bars[stage] = self._progress.add_task(description, total=total, latest="")
        self._progress.update(self._bars[stage], completed=done)

    def epoch(self, record: EpochRecord) -> None:
        accuracies = [f"source {percent(record.source_accuracy)}"]
        if record.target_accuracy is not None:
            accuracies.insert(0, f"target {percent(record.target_accuracy)}")
        if self.console.is_terminal:
            shown = accuracies if self.console.width >= NARROW else accuracies[:1]
            self._progress.update(self._bars[record.stage], latest=", ".join(shown))
            return
        number = f"stage {record.stage + 1}/{self.stages} epoch {record.epoch}"
        line = f"{self.title}: {number}  {'  '.join(accuracies)}"
        if record.pseudo_labels:
            line += f"  pseudo-labels {percent(record.pseudo_labels.coverage)}"
        self.console.print(f"{line}  {record.train_seconds:.0f} s")

    def alarm(self, alarm: Alarm) -> None:
        self.explained.add(alarm.name)
        print_alarm(self.console, alarm)

    def damaged(self, fault: str) -> None:
        message = f"damaged, set aside: {fault}\ntraining resumes from the checkpoint before it"
        self.console.print(message, style="yellow")

    def _turn_bars_into_lines(self) -> None:
        for bar in self._progress.tasks:
            if self.console.is_terminal:
                self.console.print(f"{bar.description} {bar.percentage:3.0f} % {bar.fields['latest']}")
            self._progress.remove_task(bar.id)
        self._bars.clear()


def duration(seconds: float) -> str:
    """Write a time for people.

    >>> [duration(seconds) for seconds in (59.6, 400.0, 9000.0)]
    ['60 s', '7 minutes', '2.5 hours']
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def with_notes(console: Console, task: Task) -> Task:
    """Print what a user should know about the images of a task, such as which are left out; return the task."""
    if task.notes:
        console.print(task.name, style="bold")
    for note in task.notes:
        console.print(f"  {note}")
    return task


def print_alarm(console: Console, alarm: Alarm, where: str = "") -> None:
    """Print an alarm: its name, what was measured, and the likely cause."""
    console.print(f"alarm: {alarm.name}{where}", style="bold yellow")
    console.print(Padding(f"{alarm.seen}\n{alarm.cause}", (0, 0, 0, 2)))
