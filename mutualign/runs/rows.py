"""Rows of results: one per run and way of choosing the epoch, and the results files that hold them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutualign.io.output import write_output
from mutualign.io.text import LARGEST_JSON, parse_json, read_text
from mutualign.io.typed import to_plain
from mutualign.recipes import Recipe
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Selection, curves


@dataclass(frozen=True)
class Row:
    """One recipe on one task with one seed, at the epoch that a selection chooses."""

    recipe: str
    task: str
    seed: int
    train_seconds: float
    epochs: int
    selection: Selection
    chosen_epoch: int
    target_accuracy: float | None
    source_accuracy: float
    hardware: str
    commit: str
    alarms: list[str] | None = None  # of the row of the last epoch
    curves: dict[str, list[float]] | None = None  # of the recipe's last stage, in the row of the last epoch

    def to_plain(self) -> dict[str, Any]:
        """Return the row as results files hold it: the selection as text, empty fields left out."""
        plain = to_plain(self) | {"selection": str(self.selection)}
        return {key: value for key, value in plain.items() if value is not None or key == "target_accuracy"}


def rows_of(recipe: Recipe, run: RunFolder) -> list[Row]:
    """Read the rows of a recipe from the run that trained it, and perhaps more stages.

    The row of the last epoch also has the run's alarms, and the curves of the recipe's last stage.
    """
    result = run.require_result()
    index = len(recipe.stages) - 1
    stages = result.stages[: index + 1]
    epochs = [record for record in run.metrics() if record.stage == index]
    kept = {name: values for name, values in curves(epochs).items() if "accuracy" in name or "pseudo_label" in name}
    kept["train_seconds"] = [record.train_seconds for record in epochs]
    alarms = [alarm.name for alarm in result.alarms if alarm.stage <= index]
    rows = []
    for chosen in stages[-1].selections:
        is_last = chosen.selection.kind == "last"
        rows.append(
            Row(
                recipe=recipe.name,
                task=result.task,
                seed=result.seed,
                train_seconds=round(sum(stage.train_seconds for stage in stages), 1),
                epochs=sum(stage.epochs for stage in stages),
                selection=chosen.selection,
                chosen_epoch=chosen.epoch,
                target_accuracy=chosen.target_accuracy,
                source_accuracy=chosen.source_accuracy,
                hardware=result.hardware,
                commit=result.versions.get("commit", "unknown"),
                alarms=alarms if is_last else None,
                curves=kept if is_last else None,
            )
        )
    return rows


def save_results(path: Path, command: str, rows: Sequence[Row]) -> None:
    """Write rows with the command that trained them, and their commits and hardware."""
    origin = {
        "command": command,
        "commit": ", ".join(dict.fromkeys(row.commit for row in rows)),
        "hardware": ", ".join(dict.fromkeys(row.hardware for row in rows)),
    }
    write_results(path, origin, [row.to_plain() for row in rows])


def write_results(path: Path, origin: Mapping[str, str], rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Write a results file: its origin, when it was made, `more`, and the rows, each on one line."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    text = layout({**origin, "created": created, **more, "rows": rows})
    write_output(path, f"{text}\n".encode(), force=True)


def layout(value: Any, indent: str = "") -> str:
    """Write JSON with one line per key of a table and per element of a list of tables; anything else stays on its line.

    >>> print(layout({"created": "today", "rows": [{"seed": 0, "curve": [0.5, 0.75]}, {"seed": 1, "curve": []}]}))
    {
     "created": "today",
     "rows": [
      {"seed": 0, "curve": [0.5, 0.75]},
      {"seed": 1, "curve": []}
     ]
    }
    """
    inner = f"{indent} "
    if isinstance(value, Mapping) and value:
        lines = [f"{inner}{json.dumps(key)}: {layout(one, inner)}" for key, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        return "[\n" + ",\n".join(f"{inner}{json.dumps(one)}" for one in value) + f"\n{indent}]"
    return json.dumps(value)


def command_of_results(path: Path) -> str | None:
    """Return the command that wrote a results file; None if the file is missing or something else."""
    try:
        command = parse_json(read_text(path, LARGEST_JSON))["command"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(command)
