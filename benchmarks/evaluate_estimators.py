"""How close estimates come to the true target accuracy, and which alarms runs raise; reads finished runs.

Trains nothing. Target labels are used to measure; the estimators and the audit see none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import results_file
import tyro
from rich.console import Console
from rich.table import Table

from mutualign.errors import MutualignError
from mutualign.runs.estimates import estimate_runs
from mutualign.runs.folder import RunFolder


@dataclass(frozen=True)
class Settings:
    """Evaluate estimators and alarms on the complete runs below some folders."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders as given to `mutualign compare --out`"""
    out: Path = Path("results")
    """where estimates.json and alarms.json are written"""


def evaluate_estimators(folders: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Return one row per run, selection of the epoch, and estimator that could be used."""
    by_data: dict[str, list[RunFolder]] = defaultdict(list)
    for folder in folders:
        by_data[folder.config().data].append(folder)
    rows = []
    for same_data in by_data.values():
        for which in ("last", "selected"):
            for run in estimate_runs(same_data, which):
                result = run.run.require_result()
                stage = result.stages[-1]
                chosen = stage.last if which == "last" else stage.selected
                if (true := chosen.target_accuracy) is None:
                    raise MutualignError(f"{run.run.path}: estimates can only be evaluated with target labels")
                rows += [
                    {
                        "task": result.task,
                        "recipe": result.recipe,
                        "seed": result.seed,
                        "selection": str(chosen.selection),
                        "estimator": estimator,
                        "estimated_accuracy": estimate.accuracy,
                        "interval": [estimate.low, estimate.high],
                        "target_accuracy": true,
                        "holds": estimate.low <= true <= estimate.high,
                    }
                    for estimator, estimate in run.estimates.items()
                    if estimate is not None
                ]
    return rows


def summarise_estimates(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summarise last epochs by estimator: errors in points, and how often the interval held the true accuracy."""
    lines = []
    for estimator in dict.fromkeys(row["estimator"] for row in rows):
        own = [row for row in rows if row["estimator"] == estimator and row["selection"] == "last"]
        errors = [100 * abs(row["estimated_accuracy"] - row["target_accuracy"]) for row in own]
        lines.append(
            {
                "estimator": estimator,
                "mean_absolute_error": mean(errors),
                "worst_error": max(errors),
                "intervals_hold": mean(row["holds"] for row in own),
                "mean_width": mean(100 * (row["interval"][1] - row["interval"][0]) for row in own),
                "n": len(own),
            }
        )
    return lines


def collect_alarms(folders: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Return one row per run: its alarms, its target accuracy, and that of the source-only run with the same seed."""
    last = {folder.path: folder.metrics()[-1].target_accuracy for folder in folders}
    configs = {folder.path: folder.config() for folder in folders}
    source_only = {
        (config.data, config.seed): last[path] for path, config in configs.items() if config.recipe.is_source_only
    }
    rows = []
    for folder in folders:
        result, config = folder.require_result(), configs[folder.path]
        reference = None if config.recipe.is_source_only else source_only.get((config.data, config.seed))
        rows.append(
            {
                "task": result.task,
                "recipe": result.recipe,
                "seed": result.seed,
                "target_accuracy": last[folder.path],
                "source_only_accuracy": reference,
                "alarms": [alarm.name for alarm in result.alarms or ()],
            }
        )
    return rows


def read_runs(paths: Sequence[Path]) -> tuple[list[RunFolder], int]:
    """Return the complete runs with an audit below some folders, and how many runs there are."""
    found = sorted(config.parent for path in paths for config in path.glob("*/*/seed-*/config.toml"))
    folders = [RunFolder.open(path) for path in found]
    audited = [folder for folder in folders if (result := folder.result()) and result.alarms is not None]
    if not audited:
        raise MutualignError("no complete run with an audit below the folders given")
    return audited, len(found)


def main() -> None:
    """Evaluate, print, write both files."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    try:
        folders, found = read_runs(settings.runs)
        estimates, alarms = evaluate_estimators(folders), collect_alarms(folders)
    except MutualignError as error:
        raise SystemExit(f"benchmarks/evaluate_estimators.py: {error}") from None
    Console(stderr=True).print(f"{len(folders)} of {found} runs are complete and were audited")
    lines = summarise_estimates(estimates)
    table = Table("estimator", "mean error", "worst", "interval holds", "its width", "n", title="points, last epoch")
    for line in lines:
        points = (f"{line[key]:.1f}" for key in ("mean_absolute_error", "worst_error"))
        width = f"{line['mean_width']:.1f}"
        table.add_row(line["estimator"], *points, f"{line['intervals_hold']:.0%}", width, str(line["n"]))
    Console().print(table)
    for row in (row for row in alarms if row["alarms"]):
        Console().print(f"{row['recipe']} on {row['task']}, seed {row['seed']}: {', '.join(row['alarms'])}")
    origin = results_file.origin_of_runs(folder.require_result() for folder in folders)
    results_file.write(settings.out / "estimates.json", origin, estimates, summary=lines)
    results_file.write(settings.out / "alarms.json", origin, alarms)


if __name__ == "__main__":
    main()
