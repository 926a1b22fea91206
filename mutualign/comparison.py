"""Many experiments: recipes x tasks x seeds, their rows, and the mean and interval of each system."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import special

from mutualign.data.tasks import Task
from mutualign.errors import MutualignError
from mutualign.experiment import Experiment, Plan, adapts
from mutualign.recipes import Recipe
from mutualign.records import curves
from mutualign.training.runs import RunFolder, write_atomically

Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Every recipe on every task with every seed, in run folders OUT/TASK/RECIPE/seed-SEED; what is done is skipped.

    A recipe whose stages are the beginning of another's needs no run of its own: with the same seed its training is,
    bit for bit, the beginning of the other's, and its row is read where that stage ends.
    """

    recipes: tuple[Recipe, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path

    def __post_init__(self) -> None:
        if not self.seeds:
            raise MutualignError("a comparison needs at least one seed")
        for kind, names in (("recipe", [recipe.name for recipe in self.recipes]), ("task", list(self.tasks))):
            if twice := [name for name in names if names.count(name) > 1]:
                raise MutualignError(f'the {kind} "{twice[0]}" is named twice; its runs would count twice')

    def run(
        self,
        load: Callable[[str], Task],
        on_row: Callable[[list[Row]], None] = lambda rows: None,
        **settings: Any,
    ) -> list[Row]:
        """All rows, after training what is missing; `on_row` is handed the rows so far after each run.

        `load` gives a task by its name; it is called for a task that has something to train, once.
        """
        rows: list[Row] = []
        for name in self.tasks:
            loaded: Task | None = None
            for seed in self.seeds:
                for recipe in sorted(self.recipes, key=adapts):  # runs look for a source-only one that is there
                    run = self.folder(recipe, name, seed)
                    if recipe == self._trained_for(recipe) and (not run or run.result() is None):
                        loaded = loaded or load(name)
                        self._experiment(recipe, loaded, seed, run, **settings).run()
                for recipe in self.recipes:
                    trained = self.folder(self._trained_for(recipe), name, seed)
                    rows += rows_of(recipe, trained) if trained else []
                on_row(rows)
        return rows

    def folder(self, recipe: Recipe, task: str, seed: int) -> RunFolder | None:
        """The run folder of an experiment that has begun. Raises MutualignError if it is of other settings."""
        path = run_path(self.out, task, recipe, seed)
        if not path.exists():
            return None
        run = RunFolder.open(path)
        found = Plan.of(run).recipe
        if not (found.is_prefix_of(recipe) and recipe.is_prefix_of(found)):
            raise MutualignError(
                f"{path} holds a run with other settings of {recipe.name}\n  do       choose another --out"
            )
        return run

    def _trained_for(self, recipe: Recipe) -> Recipe:
        """The longest recipe of the comparison that begins with this one: the one to train."""
        longer = [other for other in self.recipes if recipe.is_prefix_of(other)]
        return max(longer, key=lambda other: len(other.stages))

    def _experiment(self, recipe: Recipe, task: Task, seed: int, run: RunFolder | None, **settings: Any) -> Experiment:
        if run:
            return Experiment(recipe, task, seed, run, **settings)
        return Experiment.start(recipe, task, seed, run_path(self.out, task.name, recipe, seed), **settings)


def run_path(out: Path, task: str, recipe: Recipe, seed: int) -> Path:
    """Where the run folder of an experiment is."""
    return out / task / recipe.name / f"seed-{seed}"


def rows_of(recipe: Recipe, run: RunFolder) -> list[Row]:
    """The rows of a recipe from the run that trained it (and perhaps more stages): one a way of choosing the epoch.

    The row of the last epoch also has the run's alarms, and the curves of the recipe's last stage, with the stage's
    seconds so far.
    """
    result = run.result()
    if result is None:
        raise MutualignError(f"{run.path} is not complete\n  do       `mutualign run --resume {run.path}`")
    stages = result["stages"][: len(recipe.stages)]
    shared = {
        "recipe": recipe.name,
        "task": result["task"],
        "seed": result["seed"],
        "train_seconds": round(sum(stage["train_seconds"] for stage in stages), 1),
        "epochs": sum(stage["epochs"] for stage in stages),
    }
    rows = [
        shared
        | {"selection": selection, "chosen_epoch": chosen["epoch"]}
        | {key: chosen[key] for key in ("target_accuracy", "source_accuracy")}
        | {"hardware": result["hardware"], "commit": result["versions"]["commit"]}
        for selection, chosen in stages[-1]["selections"].items()
    ]
    epochs = [record for record in run.metrics() if record["stage"] == len(stages) - 1]
    kept = {name: values for name, values in curves(epochs).items() if "accuracy" in name or "pseudo_label" in name}
    kept["train_seconds"] = [record["train_seconds"] for record in epochs]
    alarms = [alarm["name"] for alarm in result.get("alarms", []) if alarm["stage"] < len(stages)]
    return [row | ({"alarms": alarms, "curves": kept} if row["selection"] == "last" else {}) for row in rows]


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds with its 95 % interval (Student's t); no interval of a single seed."""

    mean: float
    half_width: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        n, mean = len(values), sum(values) / len(values)
        if n == 1:
            return cls(mean, None, 1)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
        return cls(mean, float(special.stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n), n)

    def percent(self, digits: int = 1, sign: str = "") -> str:
        """For a table: `86.9 ± 0.8`, or `86.9` of a single seed; with sign="+", a gain is written `+2.1 ± 0.8`."""
        half_width = "" if self.half_width is None else f" ± {100 * self.half_width:.{digits}f}"
        return f"{100 * self.mean:{sign}.{digits}f}{half_width}"


@dataclass(frozen=True)
class Summary:
    """A line of the table: one recipe on one task, over seeds; target accuracy by each way of choosing the epoch.

    Without target labels there is none.
    """

    task: str
    recipe: str
    source: Interval  # at the last epoch
    target: dict[str, Interval]
    seconds: float  # of training, mean


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """A summary a task and recipe, in the order of the rows."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["recipe"]), []).append(row)
    summaries = []
    for (task, recipe), group in groups.items():
        selections = dict.fromkeys(row["selection"] for row in group if row["target_accuracy"] is not None)
        last = [row for row in group if row["selection"] == "last"]
        summaries.append(
            Summary(
                task,
                recipe,
                Interval.of([row["source_accuracy"] for row in last]),
                {
                    s: Interval.of([row["target_accuracy"] for row in group if row["selection"] == s])
                    for s in selections
                },
                sum(row["train_seconds"] for row in last) / len(last),
            )
        )
    return summaries


@dataclass(frozen=True)
class Difference:
    """Target accuracy of one recipe less that of a baseline, over the seeds that both have, by way of choosing."""

    task: str
    recipe: str
    baseline: str
    target: dict[str, Interval]


def differences(rows: Iterable[Row]) -> list[Difference]:
    """Each task's recipes against its first one, paired by seed; none where no seed is shared, or nothing is labelled.

    Seeds share the data's order and the initial weights' draws, and much of the noise with them: a paired interval is
    often narrower than either system's own.
    """
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for row in rows:
        if row["target_accuracy"] is None:
            continue
        by_selection = found.setdefault((row["task"], row["recipe"]), {})
        by_selection.setdefault(row["selection"], {})[row["seed"]] = row["target_accuracy"]
    baselines: dict[str, str] = {}
    paired = []
    for (task, recipe), by_selection in found.items():
        baseline = baselines.setdefault(task, recipe)
        if recipe == baseline:
            continue
        gains: dict[str, Interval] = {}
        for selection, own in by_selection.items():
            theirs = found[task, baseline].get(selection, {})
            if shared := own.keys() & theirs.keys():
                gains[selection] = Interval.of([own[seed] - theirs[seed] for seed in sorted(shared)])
        if gains:
            paired.append(Difference(task, recipe, baseline, gains))
    return paired


def save_results(path: Path, command: str, rows: Sequence[Row]) -> None:
    """Write a results file: the command, the commits and hardware that the rows come from, and the rows."""
    content = {
        "command": command,
        "commit": ", ".join(dict.fromkeys(row["commit"] for row in rows)),
        "hardware": ", ".join(dict.fromkeys(row["hardware"] for row in rows)),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
