"""A run on the terminal: its config, its curves as sparklines, its result and alarms."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from mutualign.cli.progress import print_alarm
from mutualign.errors import shell_command
from mutualign.io.typed import to_plain
from mutualign.recipes import Stage
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result, curves
from mutualign.runs.spec import RunConfig
from mutualign.runs.statistics import percent

BARS = "▁▂▃▄▅▆▇█"


def show_run(console: Console, run: RunFolder) -> None:
    """Print a run's config, its curves, and its result."""
    config, records, result = run.config(), run.metrics(), run.result()
    console.print(str(run.path), style="bold")
    for name, value in (("task", config.task), ("recipe", config.recipe.name), ("seed", config.seed)):
        console.print(f"  {name:<8} {value}")
    console.print(f"  command  {config.command}")
    for number, stage in enumerate(config.recipe.stages):
        console.print(f"\nstage {number + 1}: {stage.method}", style="bold")
        console.print("  " + ", ".join(f"{name} {value}" for name, value in _settings(stage).items()))
        found = curves([record for record in records if record.stage == number])
        width = max(map(len, found), default=0)
        for name, values in found.items():
            console.print(f"  {name:<{width}} {sparkline(values, 32)}  {values[0]:.3f} → {values[-1]:.3f}")
    if result is None:
        console.print(f"\nnot complete; resume with: {shell_command('mutualign', 'run', '--resume', run.path)}")
    else:
        _show_result(console, config, result)


def _settings(stage: Stage) -> dict[str, object]:
    """The settings of a stage, in one table."""
    plain: dict[str, object] = to_plain(stage)
    nested = {key: plain.pop(key) or {} for key in ("optim", "options")}
    del plain["method"]
    for table in nested.values():
        plain |= table if isinstance(table, dict) else {}
    return plain


def _show_result(console: Console, config: RunConfig, result: Result) -> None:
    console.print(f"\n  hardware {result.hardware}\n  data     {result.data}")
    table = Table("stage", "chosen by", "epoch", "target", "source", "seconds", box=box.SIMPLE_HEAD)
    for number, stage in enumerate(result.stages):
        for chosen in stage.selections:
            is_oracle = chosen.selection.kind == "oracle"
            table.add_row(
                str(number + 1),
                "oracle (needs labels)" if is_oracle else str(chosen.selection),
                str(chosen.epoch),
                percent(chosen.target_accuracy),
                percent(chosen.source_accuracy),
                f"{stage.train_seconds:.0f}",
                style="dim" if is_oracle else "",
            )
    console.print(table)
    if result.alarms is None:
        return  # from before there was an audit
    for alarm in result.alarms:
        print_alarm(console, alarm, f" (stage {alarm.stage + 1})")
    if not result.alarms:
        console.print("no alarms")
    if result.compared_with is None and not config.recipe.is_source_only:
        console.print("not checked for negative transfer: no source-only run of the same data and seed next to it")


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Draw a curve in one line of block characters, from its lowest to its highest value."""
    shown = values
    if len(values) > width:
        shown = [values[round(i * (len(values) - 1) / max(width - 1, 1))] for i in range(width)]
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((value - low) * scale)] for value in shown)
