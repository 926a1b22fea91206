"""Tables for the terminal: accuracies over seeds, gains over a baseline, estimates, ranked runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from mutualign.evaluation.selection import Choice
from mutualign.runs.history import Selection
from mutualign.runs.statistics import Difference, Summary
from mutualign.runs.status import RunStatus

HEADINGS = {"last": "target,\nlast epoch", "validator": "target,\nselected", "oracle": "oracle\n(needs labels)"}


def summary_tables(summaries: Sequence[Summary], verdicts: Mapping[tuple[str, str], str] | None = None) -> list[Table]:
    """Make a table per task: source accuracy, target accuracy by each way of choosing the epoch, seconds.

    `verdicts`, by task and recipe, are shown in place of target accuracies.
    """
    tasks = dict.fromkeys(summary.task for summary in summaries)
    return [
        _summary_table(task, [summary for summary in summaries if summary.task == task], verdicts or {})
        for task in tasks
    ]


def _summary_table(task: str, summaries: Sequence[Summary], verdicts: Mapping[tuple[str, str], str]) -> Table:
    selections: list[Selection] = list(dict.fromkeys(way for summary in summaries for way in summary.target))
    validators = [way.validator.replace("_", " ") for way in selections if way.validator]
    note = f"\nselected epoch: the one with the highest {', '.join(validators)},\na score without labels"
    table = Table(
        title=task,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="accuracy in %, mean ± 95 % interval over n seeds; seconds of training, fastest seed"
        + (note if selections else ""),
    )
    table.add_column("recipe", overflow="fold")  # the only column that gives way on a narrow terminal
    for column in ("n", "source"):
        table.add_column(column, justify="right", no_wrap=True)
    for way in selections:
        style = "dim" if way.kind == "oracle" else ""
        table.add_column(HEADINGS[way.kind], justify="right", style=style, no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    if verdicts:
        table.add_column("verdict (runs)", overflow="fold")
    for summary in summaries:
        targets = [summary.target[way].percent() if way in summary.target else "" for way in selections]
        numbers = (str(summary.source.n), summary.source.percent(), *targets, f"{summary.seconds:.0f}")
        table.add_row(summary.recipe, *numbers, *([verdicts.get((task, summary.recipe), "")] if verdicts else []))
    return table


def difference_tables(paired: Sequence[Difference]) -> list[Table]:
    """Make a table per task: what each recipe gains over its fair source-only run, paired by seed."""
    tables = []
    for task in dict.fromkeys(difference.task for difference in paired):
        own = [difference for difference in paired if difference.task == task]
        table = Table(
            title=f"{task}: gain over source only",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            caption="points of target accuracy, mean ± 95 % interval over pairs of the same seed",
        )
        for heading in ("recipe", "over"):
            table.add_column(heading, overflow="fold")
        for heading in ("n", "last epoch", "selected epoch"):
            table.add_column(heading, justify="right", no_wrap=True)
        for difference in own:
            last, selected = difference.target_by("last"), difference.target_by("validator")
            n = str(last.n) if last else ""
            gains = (gain.percent(sign="+") if gain else "" for gain in (last, selected))
            table.add_row(difference.recipe, difference.baseline, n, *gains)
        tables.append(table)
    return tables


def selection_table(choices: Sequence[Choice], validator: str) -> Table:
    """Make a table of runs, ranked by a validator: the chosen epoch of each and the last one."""
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


STATE_STYLES = {"complete": "green", "running": "cyan", "stopped": "yellow", "failed": "red", "unreadable": "red"}


def runs_table(found: Sequence[RunStatus], folder: Path) -> Table:
    """Make a table of runs: state, epochs, and who trains it, what ended it, or why it cannot be read."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=f"runs in {folder}")
    table.add_column("run", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for one in found:
        state = Text(one.state, style=STATE_STYLES[one.state])
        name = one.path.relative_to(folder) if one.path != folder else one.path
        table.add_row(str(name), state, f"{one.epochs}/{one.planned or '?'}", one.detail)
    return table
