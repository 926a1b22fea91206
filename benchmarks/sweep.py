"""Regret of sweeps: the trial that the score chose against the best one by labels, and against the recipe as it is.

Reads finished sweeps, each with runs of the unchanged recipe in another folder, and writes `results/sweep.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import results_file
import tyro

from mutualign.errors import MutualignError
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result
from mutualign.runs.status import find_runs
from mutualign.runs.sweeps.study import Study


@dataclass(frozen=True)
class Settings:
    """Compare what sweeps chose with the labels that they did not see."""

    sweeps: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="SWEEP ...")]
    """folders of finished sweeps, such as sweeps/digits/space"""
    unchanged: Path = Path("runs")
    """folder with a run of each sweep's recipe as it is, on the same task"""
    out: Path = Path("results/sweep.json")
    """where the numbers are written"""


def accuracy_of(result: Result) -> float:
    """Target accuracy of a run at the epoch that the default validator selects."""
    accuracy = result.stages[-1].selected.target_accuracy
    assert accuracy is not None, "the task has no target labels"
    return accuracy


def row(study: Study, unchanged: list[Result]) -> tuple[dict[str, Any], list[Result]]:
    """Return the numbers of a sweep, and the results that they come from."""
    trials = [trial for trial in study.study.trials if trial.state.is_finished()]
    complete, best = study.complete(), study.best()
    if best is None:
        raise MutualignError(f"{study.folder}: no trial is complete")
    accuracies = {trial.number: study.accuracy(trial) for trial in complete}
    known = [accuracy for accuracy in accuracies.values() if accuracy is not None]
    facts = {name: json.loads(text) for name, text in study.study.user_attrs.items()}
    runs = [result for path in find_runs(study.folder / "runs") if (result := RunFolder.open(path).result())]
    same = [one for one in unchanged if (one.recipe, one.task) == (facts["recipe"]["name"], facts["task"])]
    if not same:
        raise MutualignError(
            f"no complete run of {facts['recipe']['name']} on {facts['task']} among the unchanged ones"
        )
    default = sum(map(accuracy_of, same)) / len(same)
    ended = max(trial.datetime_complete for trial in trials if trial.datetime_complete)
    began = min(trial.datetime_start for trial in trials if trial.datetime_start)
    chosen = accuracies[best.number]
    assert chosen is not None
    numbers = {
        "task": facts["task"],
        "recipe": facts["recipe"]["name"],
        "space": facts["space"],
        "trials": len(trials),
        "complete": len(complete),
        "pruned": sum(trial.state.name == "PRUNED" for trial in trials),
        "seeds": facts["seeds"],
        "hours": round((ended - began).total_seconds() / 3600, 3),
        "chosen_trial": best.number,
        "chosen": best.params,
        "chosen_accuracy": chosen,
        "best_accuracy": max(known),
        "worst_accuracy": min(known),
        "regret": max(known) - chosen,
        "default_accuracy": default,
        "default_seeds": len(same),
        "gain_over_default": chosen - default,
        "scores_and_accuracies": [[trial.values[0], accuracies[trial.number]] for trial in complete],
    }
    return numbers, [*runs, *same]


def main(settings: Settings) -> None:
    """Write the results file."""
    unchanged = [result for path in find_runs(settings.unchanged) if (result := RunFolder.open(path).result())]
    rows, results = [], []
    for folder in settings.sweeps:
        numbers, read = row(Study(folder), unchanged)
        rows.append(numbers)
        results += read
    trained_by = list(dict.fromkeys(result.command for result in results))
    results_file.write(settings.out, results_file.origin_of_runs(results), rows, trained_by=trained_by)


if __name__ == "__main__":
    main(tyro.cli(Settings))
