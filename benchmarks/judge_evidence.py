"""How well estimates and alarms tell what target labels would have told, over runs that `mutualign compare` has left.

Trains nothing. Target labels measure here: the estimates and alarms themselves see none.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import report
import tyro
from rich.console import Console
from rich.table import Table

from mutualign.errors import MutualignError
from mutualign.evaluation import audit
from mutualign.evaluation.selection import best_epoch
from mutualign.runs.estimates import RANKED_BY, estimate_runs
from mutualign.runs.folder import RunFolder


@dataclass(frozen=True)
class Settings:
    """Judge estimates and alarms on the complete runs below some folders."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders as given to `mutualign compare --out`"""
    out: Path = Path("results")
    """where estimates.json and alarms.json go"""


def judge_estimates(folders: list[RunFolder]) -> list[dict[str, Any]]:
    """A row a run, way of choosing the epoch, and estimator that could be used."""
    by_data: dict[str, list[RunFolder]] = defaultdict(list)
    for folder in folders:
        by_data[folder.config()["data"]].append(folder)
    rows = []
    for together in by_data.values():
        for selection in ("last", "selected"):
            for run in estimate_runs(together, selection):  # type: ignore[arg-type]
                result = run.run.result() or {}
                chosen = result["stages"][-1]["selections"]
                name = next(name for name in chosen if name.startswith(("last", "validator:")[selection == "selected"]))
                true = chosen[name]["target_accuracy"]
                shared = {key: result[key] for key in ("task", "recipe", "seed")} | {"selection": name}
                rows += [
                    shared
                    | {
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


def summarise_estimates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line an estimator, over last epochs: errors in points, and how often the interval held the truth."""
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


def judge_alarms(folders: list[RunFolder]) -> list[dict[str, Any]]:
    """A row a run: the alarms that its records raise, and its target accuracy beside that of source only."""
    source_only = {
        (folder.config()["data"], folder.config()["seed"]): folder
        for folder in folders
        if folder.config()["recipe"]["name"] == "source_only"
    }
    rows = []
    for folder in folders:
        result, records = folder.result() or {}, folder.metrics()
        stages = [[record for record in records if record["stage"] == stage] for stage in range(len(result["stages"]))]
        alarms = [alarm.name for epochs in stages for alarm in audit.alarms(epochs, result["source_class_shares"])]
        beside = None
        if result["recipe"] != "source_only":
            beside = source_only.get((result["data"], result["seed"]))
        if beside:
            chosen = [best_epoch(epochs, RANKED_BY) for epochs in (stages[-1], beside.metrics())]
            alarms += [alarm.name for alarm in [audit.negative_transfer(*chosen)] if alarm]
        rows.append(
            {key: result[key] for key in ("task", "recipe", "seed")}
            | {
                "target_accuracy": records[-1]["target_accuracy"],
                "source_only_accuracy": beside.metrics()[-1]["target_accuracy"] if beside else None,
                "alarms": alarms,
            }
        )
    return rows


def main() -> None:
    """Judge, print, write both files."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    try:
        paths = sorted(config.parent for path in settings.runs for config in path.glob("*/*/seed-*/config.toml"))
        folders = [folder for folder in map(RunFolder.open, paths) if "alarms" in (folder.result() or {})]
        if not folders:
            raise MutualignError("no complete run with an audit below the folders given")
        estimates, alarms = judge_estimates(folders), judge_alarms(folders)
    except MutualignError as error:
        raise SystemExit(f"benchmarks/judge_evidence.py: {error}") from None
    Console(stderr=True).print(f"{len(folders)} of {len(paths)} runs are complete and were audited")
    lines = summarise_estimates(estimates)
    table = Table("estimator", "mean error", "worst", "interval holds", "its width", "n", title="points, last epoch")
    for line in lines:
        points = (f"{line[key]:.1f}" for key in ("mean_absolute_error", "worst_error"))
        width = f"{line['mean_width']:.1f}"
        table.add_row(line["estimator"], *points, f"{line['intervals_hold']:.0%}", width, str(line["n"]))
    Console().print(table)
    for row in (row for row in alarms if row["alarms"]):
        Console().print(f"{row['recipe']} on {row['task']}, seed {row['seed']}: {', '.join(row['alarms'])}")
    results = [folder.result() or {} for folder in folders]
    origin = report.origin() | {
        "commit": ", ".join(dict.fromkeys(result["versions"]["commit"] for result in results)),
        "hardware": "; ".join(dict.fromkeys(result["hardware"] for result in results)),
    }
    report.write(settings.out / "estimates.json", origin, estimates, summary=lines)
    report.write(settings.out / "alarms.json", origin, alarms)


if __name__ == "__main__":
    main()
