"""How well each validator chooses epochs and recipes, compared with choosing by target labels; reads finished runs.

Reads run folders OUT/TASK/RECIPE/seed-N of `mutualign compare`; trains nothing. Target labels are used to measure and
choose nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import results_file
import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from mutualign.errors import MutualignError
from mutualign.evaluation.records import EpochRecord
from mutualign.evaluation.selection import best_epoch
from mutualign.evaluation.validators import VALIDATORS, combine
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result


@dataclass(frozen=True)
class Settings:
    """Evaluate every validator on the complete runs below some folders."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders as given to `mutualign compare --out`"""
    out: Path = Path("results/validators.json")
    """where the numbers are written"""


@dataclass(frozen=True)
class Run:
    """The epochs of a complete run's last stage."""

    result: Result
    epochs: Sequence[EpochRecord]

    @classmethod
    def read(cls, folder: RunFolder) -> Run | None:
        """Read a run; None if it is not complete, or is from a version with fewer validators."""
        result, records = folder.result(), folder.metrics()
        if result is None or not records:
            return None
        epochs = [with_combined_score(record) for record in records if record.stage == records[-1].stage]
        return None if any(VALIDATORS.keys() - epoch.scores.keys() for epoch in epochs) else cls(result, epochs)


def with_combined_score(epoch: EpochRecord) -> EpochRecord:
    """Add the combined score to a record from before it existed; such records hold all its parts."""
    scores = epoch.scores
    if epoch.audit is None or "combined" in scores:
        return epoch
    parts = scores["augmentation_consistency"], scores["source_accuracy"]
    combined = combine(scores["information_maximisation"], epoch.audit.predicted_shares, *parts)
    return replace(epoch, scores=scores | {"combined": combined})


def evaluate(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per run and validator.

    rank_correlation            Spearman's, of score and target accuracy over epochs; None if either is constant
    lost_against_oracle_epoch   accuracy of the run's best epoch minus that of the chosen one
    lost_against_oracle_recipe  the same over all epochs of all recipes on the task with the seed, for the validator's
                                choice among them; equal in the rows of those recipes
    """
    contests: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in runs:
        contests[run.result.task, run.result.seed].append(run)
    rows = []
    for run in runs:
        contest = contests[run.result.task, run.result.seed]
        all_epochs = [epoch for each in contest for epoch in each.epochs]
        rows += [
            {
                "task": run.result.task,
                "recipe": run.result.recipe,
                "seed": run.result.seed,
                "validator": validator,
                "rank_correlation": correlation(run.epochs, validator),
                "lost_against_oracle_epoch": lost(run.epochs, validator),
                "lost_against_oracle_recipe": lost(all_epochs, validator),
                "recipes": len(contest),
            }
            for validator in VALIDATORS
        ]
    return rows


def lost(epochs: Sequence[EpochRecord], validator: str) -> float:
    """Return the accuracy that is lost by choosing among epochs by a validator instead of by target labels."""
    return max(map(accuracy, epochs)) - accuracy(best_epoch(epochs, validator))


def correlation(epochs: Sequence[EpochRecord], validator: str) -> float | None:
    """Return Spearman's rank correlation of score and target accuracy; None if either is constant."""
    scores, accuracies = [epoch.scores[validator] for epoch in epochs], [accuracy(epoch) for epoch in epochs]
    if len(set(scores)) == 1 or len(set(accuracies)) == 1:
        return None
    return float(spearmanr(scores, accuracies).statistic)


def accuracy(epoch: EpochRecord) -> float:
    """Return the target accuracy. Raises MutualignError for a run without target labels."""
    if epoch.target_accuracy is None:
        raise MutualignError("validators can only be evaluated on runs with target labels")
    return epoch.target_accuracy


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summarise by validator, in points: means and the worst loss; a choice among recipes counts once."""
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
    """Evaluate, print a table, write the JSON."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    try:
        paths = sorted(config.parent for path in settings.runs for config in path.glob("*/*/seed-*/config.toml"))
        runs = [run for path in paths if (run := Run.read(RunFolder.open(path)))]
        if not runs:
            raise MutualignError("no complete run with every score below the folders given")
        rows = evaluate(runs)
    except MutualignError as error:
        raise SystemExit(f"benchmarks/evaluate_validators.py: {error}") from None
    Console(stderr=True).print(f"{len(runs)} of {len(paths)} runs are complete and have every score")
    table = Table("validator", "rank correlation", "epoch: mean", "worst", "recipe: mean", "worst", title="points lost")
    for line in summary(rows):
        correlated = "" if line["rank_correlation"] is None else f"{line['rank_correlation']:.2f}"
        losses = (f"{line[key]:.2f}" for key in ("epoch_mean", "epoch_worst", "recipe_mean", "recipe_worst"))
        table.add_row(line["validator"], correlated, *losses)
    Console().print(table)
    origin = results_file.origin_of_runs(run.result for run in runs)
    results_file.write(settings.out, origin, rows, summary=summary(rows))


if __name__ == "__main__":
    main()
