"""Read results/*.json: rows of comparisons, and what several tables and pictures compute from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mutualign.io.typed import parse_typed, to_plain
from mutualign.runs.history import Selection
from mutualign.runs.rows import Row
from mutualign.runs.statistics import Interval

ROOT = Path(__file__).parents[1]
OFFICE31 = ("amazon-webcam", "amazon-dslr", "webcam-amazon", "webcam-dslr", "dslr-amazon", "dslr-webcam")
PUBLISHED_OFFICE31 = {  # ResNet-50, fine-tuned; the mean is that of the papers, over all six pairs
    "DANN, published": ("82.0", "79.7", "67.4", "", "68.2", "", "82.2"),
    "SHOT, published": ("90.1", "94.0", "74.3", "", "74.7", "", "88.6"),
}
BOARDS = {"leaderboard-photos": "Office-31", "leaderboard-digits": "digits"}  # results files, and what they are called

Results = Mapping[str, Any]  # of a file: the origin of its numbers, and its rows


def load(name: str) -> Results:
    """Read results/NAME.json."""
    results: Results = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return results


def read_rows(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Convert the rows of a results file that `mutualign compare` wrote."""
    parsed = ({**row, "selection": to_plain(Selection.parse(row["selection"]))} for row in rows)
    return [parse_typed(row, Row, "results") for row in parsed]


def mean_over_pairs(rows: Sequence[Row], recipe: str, kind: str) -> Interval:
    """Return the target accuracy averaged over the pairs of Office-31, with its interval over seeds."""
    own = [row for row in rows if row.recipe == recipe and row.selection.kind == kind]
    by_seed: dict[int, list[float]] = {}
    for row in own:
        by_seed.setdefault(row.seed, []).append(row.target_accuracy or 0.0)
    if any(len(found) != len(OFFICE31) for found in by_seed.values()):
        raise ValueError(f"a seed of {recipe} does not have all pairs of Office-31")
    return Interval.of([sum(found) / len(found) for found in by_seed.values()])


def by_variant(results: Results) -> dict[str, dict[str, dict[int, float]]]:
    """Return the target accuracies of `benchmarks/variants.py` by variant, recipe and seed."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in results["rows"]:
        found.setdefault(row["variant"], {}).setdefault(row["recipe"], {})[row["seed"]] = row["target_accuracy"]
    return found
