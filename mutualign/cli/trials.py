"""Progress of a sweep: a line for each trial that ends, with the best so far, the rate and the time left."""

from __future__ import annotations

import datetime
import time

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from mutualign.cli.many import WorkDisplay
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.runs.sweeps.study import Study
from mutualign.runs.work import Outcome, Work

SHOWN = 5  # best trials of the table


class Trials(WorkDisplay):
    """Shows the trials of a study as they end. Use it as a context."""

    def __init__(self, console: Console, study: Study, trials: int) -> None:
        self.console, self.study, self.trials = console, study, trials
        self.before, self.began = self._finished(), time.monotonic()
        self._progress = Progress(
            TextColumn("trials"), BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._bar = self._progress.add_task("trials", total=trials, completed=self.before, note="")

    def __enter__(self) -> Trials:
        self.console.print(f"{self.before} of {self.trials} trials are done")
        return super().__enter__()

    def done(self, work: Work, outcome: Outcome) -> None:
        if outcome.state == "stopped":
            return
        trial = self.study.trial(int(work.name.rpartition(" ")[2]))
        best, finished = self.study.best(), self._finished()
        if outcome.state != "complete":
            text = f"{outcome.state}: {outcome.message.partition(chr(10))[0]}"
        elif trial.state.name == "COMPLETE":
            text = f"{DEFAULT_VALIDATOR} {trial.values[0]:.4f}"
        else:
            text = f"pruned after {len(trial.intermediate_values)} epochs"
        leader = f", best {best.values[0]:.4f} by trial {best.number}" if best else ""
        self.console.print(f"[{finished}/{self.trials}] {work.name}: {text}{leader}{self.forecast(finished)}")
        self._progress.update(self._bar, completed=finished, note=leader.removeprefix(", "))

    def forecast(self, finished: int) -> str:
        """Return the rate in trials per minute and the time left."""
        seconds, new = time.monotonic() - self.began, finished - self.before
        if new <= 0 or seconds <= 0:
            return ""
        left = datetime.timedelta(seconds=round((self.trials - finished) * seconds / new))
        return f"; {60 * new / seconds:.2g} trials/min, {left} left"

    def table(self) -> Table:
        """Make a table of the best trials: score and settings."""
        best = sorted(self.study.complete(), key=lambda trial: -trial.values[0])[:SHOWN]
        note = f"by {DEFAULT_VALIDATOR}, without target labels; {len(self.study.complete())} trials complete"
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=note)
        table.add_column("trial", justify="right", no_wrap=True)
        table.add_column("score", justify="right", no_wrap=True)
        names = list(best[0].params)
        for name in names:
            table.add_column(name, overflow="fold")
        for trial in best:
            values = (trial.params[name] for name in names)
            shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
            table.add_row(str(trial.number), f"{trial.values[0]:.4f}", *shown)
        return table

    def _finished(self) -> int:
        return sum(trial.state.is_finished() for trial in self.study.study.get_trials(deepcopy=False))
