"""What the terminal shows: progress, tables, the curves of a run."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mutualign.evaluation.audit import Alarm
from mutualign.evaluation.selection import Choice
from mutualign.recipes import Recipe
from mutualign.runs.comparison import Difference, Summary
from mutualign.runs.estimates import RunEstimates
from mutualign.runs.experiment import Observer
from mutualign.runs.folder import Record, RunFolder
from mutualign.runs.history import curves

_HEADINGS = {"last": ("target,\nlast epoch", ""), "oracle": ("oracle\n(needs labels)", "dim")}
BARS = "▁▂▃▄▅▆▇█"


class ProgressDisplay(Observer):
    """A live bar a stage on a terminal; a line an epoch elsewhere (a log file, CI). Use it as a context."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.title, self.stages = "", 1
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[latest]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._bars: dict[tuple[str, int], Any] = {}

    def __enter__(self) -> ProgressDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, recipe: Recipe, task: str, seed: int) -> None:
        self.title, self.stages = f"{recipe.name} on {task}, seed {seed}", len(recipe.stages)

    def step(self, stage: int, done: int, total: int) -> None:
        key = (self.title, stage)
        if key not in self._bars:
            description = self.title if self.stages == 1 else f"{self.title}, {stage + 1}/{self.stages}"
            self._bars[key] = self._progress.add_task(description, total=total, latest="")
        self._progress.update(self._bars[key], completed=done)

    def epoch(self, record: Record) -> None:
        target, source = _percent(record["target_accuracy"]), _percent(record["source_accuracy"])
        if self.console.is_terminal:
            latest = f"target {target}, source {source}"
            self._progress.update(self._bars[self.title, record["stage"]], latest=latest)
            return
        number = f"stage {record['stage'] + 1}/{self.stages} epoch {record['epoch']}"
        line = f"{self.title}: {number}  target {target}  source {source}"
        if "pseudo_labels" in record:
            line += f"  pseudo-labels {_percent(record['pseudo_labels']['coverage'])}"
        self.console.print(f"{line}  {record['train_seconds']:.0f} s", soft_wrap=True)

    def alarm(self, alarm: Alarm) -> None:
        print_alarm(self.console, alarm.name, alarm.seen, alarm.cause)

    def damaged(self, fault: str) -> None:
        told = f"damaged, set aside: {fault}\ntraining goes on from the checkpoint before it"
        self.console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)


def print_alarm(console: Console, name: str, seen: str, cause: str) -> None:
    """An alarm: its name, what was seen, and the likely cause."""
    console.print(f"[bold yellow]alarm: {name}[/bold yellow]", highlight=False)
    console.print(Padding(f"{escape(seen)}\n{escape(cause)}", (0, 0, 0, 2)), highlight=False)


def summary_tables(summaries: Sequence[Summary]) -> list[Table]:
    """For each task: systems, source accuracy, target accuracy by each way of choosing the epoch, seconds."""
    tasks = dict.fromkeys(summary.task for summary in summaries)
    return [_summary_table(task, [summary for summary in summaries if summary.task == task]) for task in tasks]


def _summary_table(task: str, summaries: Sequence[Summary]) -> Table:
    selections = list(dict.fromkeys(name for summary in summaries for name in summary.target))
    validators = [
        name.removeprefix("validator:").replace("_", " ") for name in selections if name.startswith("validator:")
    ]
    told = f"selected epoch: the one with the highest {', '.join(validators)},\na score without labels"
    if not selections:
        told = "the target has no labels: `mutualign select`\nranks the runs without"
    table = Table(
        title=task,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="accuracy in %, mean ± 95 % interval over n seeds; seconds of training\n" + told,
    )
    table.add_column("system", overflow="fold")  # the only column that gives way on a narrow terminal
    for column in ("n", "source"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in selections:
        heading, style = _HEADINGS.get(name, ("target,\nselected", ""))
        table.add_column(heading, justify="right", style=style, no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    for summary in summaries:
        targets = [summary.target[name].percent() if name in summary.target else "" for name in selections]
        numbers = (str(summary.source.n), summary.source.percent(), *targets, f"{summary.seconds:.0f}")
        table.add_row(summary.recipe, *numbers)
    return table


def difference_tables(paired: Sequence[Difference]) -> list[Table]:
    """For each task: what each system gains over the first, seed by seed."""
    tables = []
    for task in dict.fromkeys(difference.task for difference in paired):
        own = [difference for difference in paired if difference.task == task]
        table = Table(
            title=f"{task}: gain over {own[0].baseline}",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            caption="points of target accuracy, mean ± 95 % interval over pairs of the same seed",
        )
        table.add_column("system", overflow="fold")
        for heading in ("n", "last epoch", "selected epoch"):
            table.add_column(heading, justify="right", no_wrap=True)
        for difference in own:
            last = difference.target["last"]
            selected = next(gain for name, gain in difference.target.items() if name.startswith("validator:"))
            table.add_row(difference.recipe, str(last.n), last.percent(sign="+"), selected.percent(sign="+"))
        tables.append(table)
    return tables


def show_run(console: Console, run: RunFolder) -> None:
    """A run's config, its curves, and its result."""
    config, records, result = run.config(), run.metrics(), run.result()
    console.print(f"[bold]{run.path}[/bold]\n  task     {config['task']}\n  recipe   {config['recipe']['name']}")
    console.print(f"  seed     {config['seed']}\n  command  {config['command']}", highlight=False)
    for number, stage in enumerate(config["recipe"]["stages"]):
        console.print(f"\n[bold]stage {number + 1}: {stage['method']}[/bold]", highlight=False)
        settings = {key: value for key, value in stage.items() if key not in ("method", "options")}
        console.print("  " + ", ".join(f"{key} {value}" for key, value in (settings | stage["options"]).items()))
        epochs = [record for record in records if record["stage"] == number]
        for name, values in curves(epochs).items():
            console.print(f"  {name:<24} {sparkline(values, 32)}  {values[0]:.3f} → {values[-1]:.3f}", highlight=False)
    if result is None:
        console.print(f"\nnot complete; go on with: mutualign run --resume {run.path}")
        return
    console.print(f"\n  hardware {result['hardware']}\n  data     {result['data']}", highlight=False)
    table = Table("stage", "chosen by", "epoch", "target", "source", "seconds", box=box.SIMPLE_HEAD)
    for number, stage in enumerate(result["stages"]):
        for name, chosen in stage["selections"].items():
            accuracies = (_percent(chosen["target_accuracy"]), _percent(chosen["source_accuracy"]))
            label = "oracle (needs labels)" if name == "oracle" else name
            seconds = f"{stage['train_seconds']:.0f}"
            style = "dim" if name == "oracle" else ""
            table.add_row(f"{number + 1}", label, str(chosen["epoch"]), *accuracies, seconds, style=style)
    console.print(table)
    if "alarms" not in result:
        return  # of a version before there was an audit
    for alarm in result["alarms"]:
        print_alarm(console, f"{alarm['name']} (stage {alarm['stage'] + 1})", alarm["seen"], alarm["cause"])
    if not result["alarms"]:
        console.print("no alarms")
    if result["compared_with"] is None and config["recipe"]["name"] != "source_only":
        console.print("not checked for negative transfer: no source-only run of the same seed beside it")


def estimates_table(found: Sequence[RunEstimates]) -> Table:
    """Runs with the estimated accuracy of each, its interval, and what every estimator says."""
    estimators = list(found[0].estimates)
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="estimated target accuracy in %, without target labels; the interval of the consensus\n"
        "should hold the true one in 95 of 100 cases, those of others know of sampling only",
    )
    table.add_column("run", overflow="fold")
    table.add_column("estimate", justify="right", no_wrap=True)
    for name in estimators:
        table.add_column(name.replace("_", " "), justify="right", style="dim")
    for run in found:
        name, best = run.best
        interval = f"{100 * best.accuracy:.1f} [{100 * best.low:.1f} to {100 * best.high:.1f}]"
        each = ["" if (one := run.estimates[key]) is None else f"{100 * one.accuracy:.1f}" for key in estimators]
        table.add_row(str(run.run.path), interval, *each)
    return table


def selection_table(choices: Sequence[Choice], validator: str) -> Table:
    """Runs from the best to the worst by a validator, each with its chosen epoch and its last."""
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=f"by {validator.replace('_', ' ')}, without target labels; higher is better",
    )
    table.add_column("run", overflow="fold")
    for column in ("epoch", "score", "last epoch", "its score"):
        table.add_column(column, justify="right", no_wrap=True)
    for choice in choices:
        scores = f"{choice.score:.4f}", f"{choice.last_score:.4f}"
        table.add_row(choice.run, str(choice.epoch), scores[0], str(choice.last_epoch), scores[1])
    return table


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """A curve in one line of block characters, from its lowest to its highest value."""
    shown = (
        [values[round(i * (len(values) - 1) / max(width - 1, 1))] for i in range(width)]
        if len(values) > width
        else values
    )
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((value - low) * scale)] for value in shown)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"
