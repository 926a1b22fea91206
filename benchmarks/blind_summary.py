"""What the rows of the blind test say together: errors, coverage, alarms, choices, verdicts. Every task counts once."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mutualign.evaluation.binomial import lower_limit, upper_limit
from mutualign.evaluation.estimators import ESTIMATORS
from mutualign.evaluation.validators import VALIDATORS
from mutualign.runs.statistics import Interval

Row = Mapping[str, Any]
BAD, GOOD = 0.8, 0.9  # of the source accuracy: a target accuracy below the first is bad, from the second on good
MANY, FEW = 0.25, 0.1  # of the images whose class would have to change: class frequencies that differ, or hardly do
MISS = 0.05  # of 95 % limits


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Summarise the rows of one half: by kind of task, and for each epoch that evidence is about."""
    kinds = dict.fromkeys(row["kind"] for row in rows)
    every = {kind: [row for row in rows if row["kind"] == kind] for kind in kinds}
    return {
        "tasks": {kind: len({row["task"] for row in own}) for kind, own in every.items()},
        "runs": {kind: sum(row["epoch"] == "last" for row in own) for kind, own in every.items()},
        "estimates": [
            {"kind": kind, "epoch": epoch} | line
            for kind, own in every.items()
            for epoch in ("last", "selected")
            for line in estimate_lines([row for row in own if row["epoch"] == epoch])
        ],
        "alarms": [{"kind": kind} | line for kind, own in every.items() for line in alarm_lines(lasting(own))],
        "verdicts": [{"kind": kind} | line for kind, own in every.items() for line in verdict_lines(lasting(own))],
        "choices": [{"kind": kind} | line for kind, own in every.items() for line in choice_lines(lasting(own))],
    }


def lasting(rows: Iterable[Row]) -> list[Row]:
    """Keep the rows about last epochs."""
    return [row for row in rows if row["epoch"] == "last"]


def by_task(rows: Iterable[Row], value: Callable[[Row], float]) -> list[float]:
    """Return the mean of a value over the runs of each task."""
    found = defaultdict(list)
    for row in rows:
        found[row["task"]].append(value(row))
    return [mean(values) for values in found.values()]


def rate(rows: Iterable[Row], happens: Callable[[Row], bool]) -> dict[str, Any] | None:
    """Return how often something happens, with exact 95 % limits for as many independent trials as there are tasks.

    The runs of a task are not independent: a task counts once, with the share of its runs. None without a row.
    """
    shares = by_task(rows, lambda row: float(happens(row)))
    if not shares:
        return None
    count, n = sum(shares), len(shares)
    return {
        "rate": count / n,
        "low": max(0.0, lower_limit(count, n, MISS / 2)),
        "high": upper_limit(count, n, MISS / 2),
        "tasks": n,
    }


def estimate_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Errors in points, coverage and width of the bound, of each estimator, and of a few labels."""
    lines = []
    for name in ESTIMATORS:
        own = [row for row in rows if name in row["estimates"]]
        if own:
            lines.append(estimate_line(name, own, lambda row, name=name: row["estimates"][name], "accuracy"))
    bound = estimate_line("lower bound", rows, lambda row: [row["bound"], row["bound"], 1.0], "accuracy")
    labelled = estimate_line("50 labels: accuracy", rows, lambda row: row["labelled_accuracy"], "accuracy")
    adapted = [row for row in rows if "gain" in row]
    gain = estimate_line("50 labels: gain", adapted, lambda row: row["labelled_gain"], "gain")
    return [bound, *lines, labelled, gain]


def estimate_line(name: str, rows: Sequence[Row], read: Callable[[Row], Sequence[float]], truth: str) -> dict[str, Any]:
    """One line: mean absolute error, bias, how often the range holds the truth, and its mean width."""

    def true(row: Row) -> float:
        return float(row[truth][0] if truth == "gain" else row[truth])

    return {
        "estimator": name,
        "mean_absolute_error": 100 * mean(by_task(rows, lambda row: abs(read(row)[0] - true(row)))),
        "bias": 100 * mean(by_task(rows, lambda row: read(row)[0] - true(row))),
        "holds": rate(rows, lambda row: read(row)[1] <= true(row) + 1e-6 and true(row) <= read(row)[2] + 1e-6),
        "width": 100 * mean(by_task(rows, lambda row: read(row)[2] - read(row)[1])),
        "runs": len(rows),
    }


def is_bad(row: Row) -> bool:
    """Whether the target accuracy is far below the source accuracy."""
    return bool(row["accuracy"] < BAD * row["source_accuracy"])


def is_good(row: Row) -> bool:
    """Whether the target accuracy is close to the source accuracy, and adaptation did not lower it."""
    return bool(row["accuracy"] >= GOOD * row["source_accuracy"]) and not ("gain" in row and row["gain"][2] < 0)


TRUTHS: dict[str, tuple[Callable[[Row], bool], Callable[[Row], bool]]] = {
    # Alarm: when it should be raised, and when it should not; between the two nothing is counted.
    "negative transfer": (
        lambda row: "gain" in row and row["gain"][2] < 0,
        lambda row: "gain" in row and row["gain"][0] >= 0,
    ),
    "low target accuracy": (is_bad, is_good),
    "predicted classes collapsed": (is_bad, is_good),
    "classes missing among the predictions": (
        lambda row: row["class_shift"] >= MANY or is_bad(row),
        lambda row: row["class_shift"] < FEW and is_good(row),
    ),
    "class frequencies differ": (lambda row: row["class_shift"] >= MANY, lambda row: row["class_shift"] < FEW),
    "identical domains": (lambda row: row["identical"], lambda row: not row["identical"]),
}
ANY = "any but identical domains"


def alarm_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """By alarm: how often it is raised when it should be, and when it should not."""
    lines = []
    for name, (should, should_not) in TRUTHS.items():
        lines.append(alarm_line(name, rows, should, should_not, lambda row, name=name: name in row["alarms"]))
    wrong = {name for row in rows for name in row["alarms"]} - {"identical domains"}

    def should_any(row: Row) -> bool:
        return is_bad(row) or TRUTHS["negative transfer"][0](row)

    lines.append(alarm_line(ANY, rows, should_any, is_good, lambda row: bool(wrong & set(row["alarms"]))))
    return lines


def alarm_line(
    name: str,
    rows: Sequence[Row],
    should: Callable[[Row], bool],
    should_not: Callable[[Row], bool],
    raised: Callable[[Row], bool],
) -> dict[str, Any]:
    """One line: the rate of hits, the rate of false alarms, and the runs that they were counted on."""
    hits, false = [row for row in rows if should(row)], [row for row in rows if should_not(row)]
    return {
        "alarm": name,
        "hit": rate(hits, raised),
        "false": rate(false, raised),
        "runs": [len(hits), len(false)],
    }


def verdict_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """By verdict without labels: how many runs have it, and what target labels say about them."""
    adapted = [row for row in rows if "gain" in row]
    lines = []
    for verdict in ("helped", "made it worse", "no difference", "cannot tell"):
        own = [row for row in adapted if row["verdict"] == verdict]
        truths = Counter(by_labels(row) for row in own)
        lines.append({"verdict": verdict, "runs": len(own), "by_labels": dict(truths)})
    wrong = rate(adapted, is_wrong)
    given = rate(adapted, lambda row: row["verdict"] != "cannot tell")
    return [*lines, {"verdict": "all", "runs": len(adapted), "wrong": wrong, "given": given}]


def by_labels(row: Row) -> str:
    """What the paired gain over the baseline says, by target labels: its 95 % range has a sign or not."""
    _, low, high = row["gain"]
    return "better" if low > 0 else "worse" if high < 0 else "neither"


def is_wrong(row: Row) -> bool:
    """Whether a verdict has the wrong sign, however small the true gain is; or calls a clear difference none."""
    gain = row["gain"][0]
    return bool(
        (row["verdict"] == "helped" and gain < 0)
        or (row["verdict"] == "made it worse" and gain > 0)
        or (row["verdict"] == "no difference" and by_labels(row) != "neither" and abs(gain) > 0.01)
    )


def choice_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """By way of choosing: points gained over the last epoch, points lost by choosing a recipe, and rank correlations.

    The epoch is chosen within each run. The recipe is chosen among the recipes of a task and seed, baselines included,
    at their last epochs. Intervals are over tasks.
    """
    validators = [name for name in VALIDATORS if all(name in row["scores"] for row in rows)]
    contests = defaultdict(list)
    for row in rows:
        contests[row["task"], row["seed"]].append(row)
    lines = []
    for name in ("last", *validators):
        epoch = by_task(rows, lambda row, name=name: row["epoch_accuracies"][name] - row["epoch_accuracies"]["last"])
        lines.append({"by": name, "epoch_gain": interval(epoch), "recipe_loss": None} | correlation_cells(rows, name))
        if name != "last":
            lines[-1]["recipe_loss"] = interval(losses(contests, lambda row, name=name: row["scores"][name]))
    oracle = by_task(rows, lambda row: row["oracle_accuracy"] - row["epoch_accuracies"]["last"])
    never = interval(losses(contests, lambda row: float(row["baseline"])))
    return [
        *lines,
        {"by": "source only", "epoch_gain": None, "recipe_loss": never},
        {"by": "oracle", "epoch_gain": interval(oracle), "recipe_loss": None},
    ]


def correlation_cells(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """Rank correlation of score and target accuracy over the epochs within the runs of a task; mean over tasks.

    Both rise while a network learns, whatever the score knows. Given the epoch, the partial correlation leaves that
    out. The score of `last` is the number of the epoch. A task with nothing to rank is left out, and of the partial
    correlation one where score or accuracy only rises.
    """
    tasks = defaultdict(list)
    for row in rows:
        tasks[row["task"]].append(row["curves"])
    plain, given = list[float](), list[float]()
    for curves in tasks.values():
        accuracy = ranks(curve["accuracy"] for curve in curves)
        epoch = ranks(range(len(curve["accuracy"])) for curve in curves)
        score = epoch if name == "last" else ranks(curve[name] for curve in curves)
        with_accuracy, with_epoch, rising = (
            correlation(score, accuracy),
            correlation(score, epoch),
            correlation(accuracy, epoch),
        )
        if not math.isnan(with_accuracy):
            plain.append(with_accuracy)
            if abs(with_epoch) < 1 and abs(rising) < 1:
                free = math.sqrt((1 - with_epoch**2) * (1 - rising**2))
                given.append((with_accuracy - with_epoch * rising) / free)
    return {
        "rank_correlation": interval(plain, unit=1) if plain else None,
        "given_the_epoch": interval(given, unit=1) if given and name != "last" else None,
    }


def losses(contests: Mapping[tuple[str, int], Sequence[Row]], score: Callable[[Row], float]) -> list[float]:
    """Accuracy lost by choosing the recipe with the highest score, by task; the first of equal ones."""
    found = defaultdict(list)
    for (task, _), rows in contests.items():
        found[task].append(max(row["accuracy"] for row in rows) - max(rows, key=score)["accuracy"])
    return [mean(values) for values in found.values()]


def ranks(curves: Iterable[Sequence[float]]) -> NDArray[np.float64]:
    """Rank the values of each curve, less the curve's mean rank; equal values share the mean of theirs."""
    found = [stats.rankdata(curve) for curve in curves]
    return np.concatenate([one - one.mean() for one in found])


def correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's correlation; NaN if either is constant."""
    if min(np.ptp(a), np.ptp(b)) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def interval(values: Sequence[float], unit: float = 100) -> dict[str, float | None]:
    """Mean in points, or in another unit, and half the width of its 95 % interval over tasks."""
    found = Interval.of([unit * value for value in values])
    return {"mean": found.mean, "half_width": found.half_width}
