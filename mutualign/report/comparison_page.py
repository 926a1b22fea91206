"""The page of a comparison: all complete runs below a folder, task by task, from their folders alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from mutualign.errors import MutualignError
from mutualign.report.finished import percent
from mutualign.report.page import AlarmBox, Block, Details, KeyNumber, Page, Plot, Prose, Section, Table, slug
from mutualign.report.plots import recipe_curves, score_against_accuracy
from mutualign.runs.comparison import Row, Summary, differences, rows_of, summarise
from mutualign.runs.estimates import RunEstimates, estimate_runs
from mutualign.runs.folder import RunFolder
from mutualign.runs.spec import RunSpec


def comparison_page(path: Path) -> Page:
    """The report of every complete run below a folder. Raises MutualignError if there is none."""
    folders = [RunFolder.open(config.parent) for config in sorted(path.rglob("config.toml"))]
    complete = [folder for folder in folders if "alarms" in (folder.result() or {})]
    if not complete:
        raise MutualignError(
            f"{path} is neither a run folder nor above one that is complete\n"
            "  do       name a run, such as runs/digits/fast/seed-0, or a folder that `mutualign compare` has filled"
        )
    by_task: dict[str, list[RunFolder]] = {}
    for folder in complete:
        by_task.setdefault(folder.config()["task"], []).append(folder)
    left_out = [str(folder.path.relative_to(path)) for folder in folders if folder not in complete]
    sections = [_section(task, runs, path) for task, runs in by_task.items()]
    if left_out:
        told = "Not complete, or of a version before there was an audit; `mutualign run --resume` goes on with a run:"
        sections.append(
            Section("left-out", "Left out", [Prose(told), Details("Runs", "\n".join(left_out), opened=True)])
        )
    alarmed = sum(bool((folder.result() or {})["alarms"]) for folder in complete)
    seeds = {folder.config()["seed"] for folder in complete}
    return Page(
        title="Comparison",
        where="/".join(path.absolute().parts[-2:]),
        summary=" ".join(_sentence(task, summarise(_rows(runs))) for task, runs in by_task.items()),
        numbers=[
            KeyNumber(str(len(complete)), "complete runs"),
            KeyNumber(str(len(by_task)), "tasks" if len(by_task) != 1 else "task"),
            KeyNumber(str(len(seeds)), "seeds"),
            KeyNumber(str(alarmed), "runs with an alarm"),
        ],
        sections=sections,
        version=version("mutualign"),
    )


def _rows(runs: Sequence[RunFolder]) -> list[Row]:
    return [row for run in runs for row in rows_of(RunSpec.of(run).recipe, run)]


def _sentence(task: str, summaries: Sequence[Summary]) -> str:
    best = max(summaries, key=lambda summary: summary.target["last"].mean)
    n = best.target["last"].n
    return f"On `{task}` the highest is `{best.recipe}` with {best.target['last'].percent()} % (last epoch, n = {n})."


def _section(task: str, runs: Sequence[RunFolder], path: Path) -> Section:
    rows = _rows(runs)
    # the systems from the lowest to the highest, so that the first one is what the others are held against
    order = [summary.recipe for summary in sorted(summarise(rows), key=lambda summary: summary.target["last"].mean)]
    rows.sort(key=lambda row: (row["recipe"] != "source_only", order.index(row["recipe"])))
    blocks: list[Block] = [
        _results(summarise(rows)),
        *_gains(rows),
        *_estimates(runs, path),
        _curves(task, rows),
        _scores(task, runs, dict.fromkeys(row["recipe"] for row in rows)),
    ]
    alarms: list[Block] = [
        AlarmBox(alarm["name"], str(run.path.relative_to(path)), alarm["seen"], alarm["cause"])
        for run in runs
        for alarm in (run.result() or {})["alarms"]
    ]
    return Section(slug(task), task, [*blocks, *(alarms or [Prose("No run raised an alarm.")])])


def _results(summaries: Sequence[Summary]) -> Table:
    rows = []
    for summary in summaries:
        selected = next(interval for name, interval in summary.target.items() if name.startswith("validator:"))
        accuracies = (summary.target["last"], selected, summary.target["oracle"], summary.source)
        rows.append(
            (summary.recipe, str(summary.source.n), *(one.percent() for one in accuracies), f"{summary.seconds:.0f}")
        )
    return Table(
        ("system", "n", "target, last epoch", "target, selected", "oracle (needs labels)", "source", "seconds"),
        rows,
        "Accuracy in %, mean and 95 % interval over n seeds; seconds of training. Selected: the epoch with the highest "
        "label-free score. The oracle is the best epoch by target test labels: no result, but what choosing costs.",
        numbers=frozenset({1, 2, 3, 4, 5, 6}),
        muted=frozenset({4}),
    )


def _gains(rows: Sequence[Row]) -> list[Block]:
    paired = differences(rows)
    if not paired:
        return []
    lines = []
    for difference in paired:
        last = difference.target["last"]
        selected = next(gain for name, gain in difference.target.items() if name.startswith("validator:"))
        lines.append((difference.recipe, str(last.n), last.percent(sign="+"), selected.percent(sign="+")))
    caption = f"Points of target accuracy over `{paired[0].baseline}`, mean and 95 % interval over pairs of a seed."
    head = ("system", "n", "gain, last epoch", "gain, selected epoch")
    return [Table(head, lines, caption, numbers=frozenset({1, 2, 3}))]


def _estimates(runs: Sequence[RunFolder], path: Path) -> list[Block]:
    found = estimate_runs(runs)
    lines = [_estimate(run, path) for run in found]
    caption = (
        "Target accuracy at the selected epoch as estimated without a label, from how far independently trained runs "
        "agree where there are two seeds or more, beside the true one, which needs labels."
    )
    head = ("run", "estimator", "estimate", "95 % interval", "true (needs labels)")
    return [Table(head, lines, caption, numbers=frozenset({2, 3, 4}), muted=frozenset({4}))]


def _estimate(found: RunEstimates, path: Path) -> tuple[str, ...]:
    name, best = found.best
    selections = (found.run.result() or {})["stages"][-1]["selections"]
    true = next(chosen["target_accuracy"] for key, chosen in selections.items() if key.startswith("validator:"))
    interval = f"{100 * best.low:.1f} to {100 * best.high:.1f}"
    run = str(found.run.path.relative_to(path))
    return run, name.replace("_", " "), percent(best.accuracy), interval, percent(true)


def _scores(task: str, runs: Sequence[RunFolder], recipes: Iterable[str]) -> Plot:
    selections = (runs[0].result() or {})["stages"][-1]["selections"]
    score = next(name for name in selections if name.startswith("validator:")).removeprefix("validator:")
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in recipes}
    for run in runs:
        last = run.metrics()[-1]["stage"]
        points[RunSpec.of(run).recipe.name].extend(
            (record["scores"][score], record["target_accuracy"])
            for record in run.metrics()
            if record["stage"] == last and score in record["scores"]
        )
    return Plot(
        f"scores-{slug(task)}",
        "Label-free score against accuracy",
        "A dot an epoch of a last stage. The more the dots rise from left to right, the better the score chooses "
        "epochs and systems here. The accuracy needs labels; the score does not.",
        score_against_accuracy({name: found for name, found in points.items() if found}, score.replace("_", " ")),
    )


def _curves(task: str, rows: Sequence[Row]) -> Plot:
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    for row in (row for row in rows if row["selection"] == "last"):
        kept = row["curves"]
        points = list(zip(kept["train_seconds"], kept["target_accuracy"], strict=True))
        curves.setdefault(row["recipe"], []).append(points)
    return Plot(
        f"curves-{slug(task)}",
        "Accuracy over seconds",
        "A line a seed, a dot of it an epoch; seconds on a logarithmic axis. It needs labels: for the reader, and "
        "nothing was chosen by it. Seconds compare only between runs that had the machine to themselves.",
        recipe_curves(curves),
        wide=True,
    )
