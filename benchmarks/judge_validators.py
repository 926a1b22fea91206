"""How well each validator chooses: over the runs of a comparison, against what target labels would have chosen.

Reads run folders OUT/TASK/RECIPE/seed-N that `mutualign compare` has left; trains nothing. Target labels measure here,
and choose nothing.
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
from scipy.stats import spearmanr

from mutualign.errors import MutualignError
from mutualign.evaluation.selection import best_epoch
from mutualign.evaluation.validators import VALIDATORS, combine
from mutualign.runs.folder import Record, RunFolder


@dataclass(frozen=True)
class Settings:
    """Judge every validator on the complete runs below some folders."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders as given to `mutualign compare --out`"""
    out: Path = Path("results/validators.json")
    """where the numbers go"""


@dataclass(frozen=True)
class Run:
    """The epochs of a complete run's last stage."""

    task: str
    recipe: str
    seed: int
    epochs: list[Record]
    commit: str
    hardware: str

    @classmethod
    def read(cls, folder: RunFolder) -> Run | None:
        """The run in a folder, or None if it is not complete, or is of a version with fewer validators."""
        result, records = folder.result(), folder.metrics()
        if result is None:
            return None
        epochs = [record for record in records if record["stage"] == records[-1]["stage"]]
        for epoch in epochs:
            _add_combined(epoch)
        if any(VALIDATORS.keys() - epoch["scores"].keys() for epoch in epochs):
            return None
        commit, hardware = result["versions"]["commit"], result["hardware"]
        return cls(result["task"], result["recipe"], result["seed"], epochs, commit, hardware)


def _add_combined(epoch: Record) -> None:
    """The combined score, in runs of before it was one: they hold all that it is made of."""
    found = epoch["scores"]
    if "audit" in epoch and "combined" not in found:
        parts = found["augmentation_consistency"], found["source_accuracy"]
        found["combined"] = combine(found["information_maximisation"], epoch["audit"]["predicted_shares"], *parts)


def judge(runs: list[Run]) -> list[dict[str, Any]]:
    """A row a run and validator.

    The rank correlation (Spearman's) is that of score and target accuracy over the run's epochs, None where either is
    the same throughout. Lost against the oracle epoch: the accuracy of the run's best epoch less that of the chosen
    one. Lost against the oracle recipe: the same over all epochs of all recipes on the task with the seed, for the
    validator's choice among them; equal in the rows of those recipes.
    """
    runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in runs:
        runs[run.task, run.seed].append(run)
    rows = []
    for run in runs:
        every = [epoch for other in runs[run.task, run.seed] for epoch in other.epochs]
        for validator in VALIDATORS:
            rows.append(
                {
                    "task": run.task,
                    "recipe": run.recipe,
                    "seed": run.seed,
                    "validator": validator,
                    "rank_correlation": correlation(run.epochs, validator),
                    "lost_against_oracle_epoch": lost(run.epochs, validator),
                    "lost_against_oracle_recipe": lost(every, validator),
                    "recipes": len(runs[run.task, run.seed]),
                }
            )
    return rows


def lost(epochs: list[Record], validator: str) -> float:
    """The accuracy that is lost by choosing among epochs by a validator instead of by target labels."""
    accuracies = [epoch["target_accuracy"] for epoch in epochs]
    return float(max(accuracies) - best_epoch(epochs, validator)["target_accuracy"])


def correlation(epochs: list[Record], validator: str) -> float | None:
    """Spearman's rank correlation of score and target accuracy; None where there is nothing to rank."""
    scores = [epoch["scores"][validator] for epoch in epochs]
    accuracies = [epoch["target_accuracy"] for epoch in epochs]
    if len(set(scores)) == 1 or len(set(accuracies)) == 1:
        return None
    return float(spearmanr(scores, accuracies).statistic)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line a validator: means, and the worst loss; in points. A recipe's choice counts once a task and seed."""
    lines = []
    for validator in VALIDATORS:
        own = [row for row in rows if row["validator"] == validator]
        correlations = [row["rank_correlation"] for row in own if row["rank_correlation"] is not None]
        epoch_losses = [100 * row["lost_against_oracle_epoch"] for row in own]
        contests = {(row["task"], row["seed"]): 100 * row["lost_against_oracle_recipe"] for row in own}
        lines.append(
            {
                "validator": validator,
                "rank_correlation": mean(correlations) if correlations else None,
                "epoch_mean": mean(epoch_losses),
                "epoch_worst": max(epoch_losses),
                "recipe_mean": mean(contests.values()),
                "recipe_worst": max(contests.values()),
                "runs": len(own),
                "contests": len(contests),
            }
        )
    return sorted(lines, key=lambda line: line["recipe_mean"])


def main() -> None:
    """Judge, print a table, write the JSON."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    try:
        paths = sorted(config.parent for path in settings.runs for config in path.glob("*/*/seed-*/config.toml"))
        runs = [run for path in paths if (run := Run.read(RunFolder.open(path)))]
    except MutualignError as error:
        raise SystemExit(f"benchmarks/judge_validators.py: {error}") from None
    if not runs:
        raise SystemExit("benchmarks/judge_validators.py: no complete run with every score below the folders given")
    Console(stderr=True).print(f"{len(runs)} of {len(paths)} runs are complete and have every score")
    rows = judge(runs)
    table = Table("validator", "rank correlation", "epoch: mean", "worst", "recipe: mean", "worst", title="points lost")
    for line in summary(rows):
        correlated = "" if line["rank_correlation"] is None else f"{line['rank_correlation']:.2f}"
        losses = (f"{line[key]:.2f}" for key in ("epoch_mean", "epoch_worst", "recipe_mean", "recipe_worst"))
        table.add_row(line["validator"], correlated, *losses)
    Console().print(table)
    origin = report.origin() | {
        "commit": ", ".join(dict.fromkeys(run.commit for run in runs)),
        "hardware": "; ".join(dict.fromkeys(run.hardware for run in runs)),
    }
    report.write(settings.out, origin, rows, summary=summary(rows))


if __name__ == "__main__":
    main()
