"""A run on the terminal: the verdict and the result, its curves as sparklines, how it was made."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from mutualign.cli.console import columns, print_wrapped
from mutualign.cli.progress import print_alarm
from mutualign.evaluation.verdict import Headline, Verdict
from mutualign.io.numbers import percent
from mutualign.io.typed import to_plain
from mutualign.recipes import Stage
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result, curves
from mutualign.runs.next_steps import bound_in_words, contradiction, current_alarms, current_verdict, next_steps

BARS = "▁▂▃▄▅▆▇█"
STYLES: dict[Headline, str] = {
    "helped": "bold green",
    "made it worse": "bold red",
    "no difference": "bold",
    "cannot tell": "bold yellow",
    "not compared": "bold yellow",
    "baseline": "bold",
    "source not learnt": "bold red",
}


def show_result(console: Console, run: RunFolder, explained: Collection[str] = ()) -> None:
    """Print a run's verdict and result, and what to do next; of alarms that were explained before, only the names."""
    config, result = run.config(), run.result()
    console.print(f"{config.recipe.name} on {config.task}, seed {config.seed}", style="bold")
    if result is None:
        console.print(f"not complete; to continue: {run.to_continue}")
    else:
        _show_result(console, run, result, explained)


def show_run(console: Console, run: RunFolder) -> None:
    """Print a run's result, then its curves, and how it was made."""
    show_result(console, run)
    config, records, result = run.config(), run.metrics(), run.result()
    for number, stage in enumerate(config.recipe.stages):
        console.print(f"\nstage {number + 1}: {stage.method}", style="bold")
        print_wrapped(console, ", ".join(f"{name} {value}" for name, value in _settings(stage).items()))
        found = curves([record for record in records if record.stage == number])
        width = max(map(len, found), default=0)
        for name, values in found.items():
            line = sparkline(values, max(8, min(32, columns(console) - width - 23)))
            console.print(f"  {name:<{width}} {line}  {values[0]:.3f} → {values[-1]:.3f}")
    if config.notes:
        console.print("\nthe images", style="bold")
    for note in config.first_notes:
        print_wrapped(console, note)
    console.print("\nhow it was made", style="bold")
    console.print(f"  folder   {run.path}\n  command  {config.command}")
    if result is not None:
        print_wrapped(console, f"hardware {result.hardware}")
    print_wrapped(console, f"data     {config.data}")


def print_verdict(console: Console, verdict: Verdict, run: RunFolder) -> None:
    """Print the verdict on a run: in a word, in a sentence, and the numbers that it rests on."""
    console.print(verdict.headline, style=STYLES[verdict.headline])
    print_wrapped(console, verdict.sentence)
    if verdict.true_accuracy is not None:
        console.print(f"  {percent(verdict.true_accuracy)} of the target test images right, by their labels")
    if verdict.lower_bound is not None and verdict.accuracy is not None:
        print_wrapped(
            console,
            f"without labels: {bound_in_words(verdict.lower_bound)}; about {percent(verdict.accuracy)}, by an estimate",
        )
    labelled = verdict.true_accuracy is not None
    print_wrapped(console, contradiction(verdict.lower_bound, verdict.accuracy, run, labelled=labelled))


def _settings(stage: Stage) -> dict[str, object]:
    """The settings of a stage, in one table."""
    plain: dict[str, object] = to_plain(stage)
    nested = {key: plain.pop(key) or {} for key in ("optim", "options")}
    del plain["method"]
    for table in nested.values():
        plain |= table if isinstance(table, dict) else {}
    return plain


def _show_result(console: Console, run: RunFolder, result: Result, explained: Collection[str]) -> None:
    verdict = current_verdict(run)
    alarms = current_alarms(result, verdict)
    if verdict is not None:
        print_verdict(console, verdict, run)
    for alarm in alarms:
        where = f"stage {alarm.stage + 1}"
        if alarm.name in explained:
            console.print(f"alarm: {alarm.name} ({where}, see above)", style="bold yellow")
        else:
            print_alarm(console, alarm, f" ({where})")
    if not alarms:
        console.print("no alarms")
    table = Table("stage", "chosen by", "epoch", box=box.SIMPLE_HEAD)
    labels = any(one.target_accuracy is not None for stage in result.stages for one in stage.selections)
    for column in (*(["target"] if labels else []), "source", "seconds"):
        table.add_column(column, justify="right")
    for number, stage in enumerate(result.stages):
        for chosen in stage.selections:
            is_oracle = chosen.selection.kind == "oracle"
            table.add_row(
                str(number + 1),
                "oracle (needs labels)" if is_oracle else str(chosen.selection),
                str(chosen.epoch),
                *([percent(chosen.target_accuracy)] if labels else []),
                percent(chosen.source_accuracy),
                f"{stage.train_seconds:.0f}",
                style="dim" if is_oracle else "",
            )
    console.print(table)
    steps = [] if verdict is None else next_steps(verdict, run, alarms=bool(alarms))
    if steps:
        console.print("what to do next", style="bold")
    for step in steps:
        print_wrapped(console, step)


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Draw a curve in one line of block characters, from its lowest to its highest value."""
    shown = values
    if len(values) > width:
        shown = [values[round(i * (len(values) - 1) / max(width - 1, 1))] for i in range(width)]
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((value - low) * scale)] for value in shown)
