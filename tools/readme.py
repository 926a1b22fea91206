"""The tables of the README, generated from results/*.json: `python tools/readme.py [--check]`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from mutualign.runs.comparison import summarise

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
SECTION = "#the-published-experiment"
PUBLISHED = {"source_only": "53", "dann": "71", "mani": "87"}  # target accuracy, %, on the variant `resampled`


def accuracy_table(results: dict[str, Any]) -> list[str]:
    """Systems on tasks: target accuracy at the last, the selected and (needing labels) the best epoch."""
    columns = [
        "task",
        "system",
        "target, last epoch",
        "target, selected epoch",
        "*oracle epoch*",
        "source",
        "n",
        "seconds",
    ]
    lines = []
    for summary in summarise(results["rows"]):
        selected = next(interval for name, interval in summary.target.items() if name.startswith("validator:"))
        last, oracle = summary.target["last"], summary.target["oracle"]
        accuracies = [f"**{last.percent()}**", selected.percent(), f"*{oracle.percent()}*", summary.source.percent()]
        lines.append([summary.task, summary.recipe, *accuracies, f"{last.n}", f"{summary.seconds:.0f}"])
    if any(line[0] == "mnist-mnistm-resampled" for line in lines):
        columns.insert(2, "published")
        for line in lines:
            line.insert(2, PUBLISHED.get(line[1], "") if line[0] == "mnist-mnistm-resampled" else "")
    return [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *lines)]


HEADLINES = (
    "our step",
    "our rate / matmul rate",
    "plain step, decoded an item / our step",
    "plain step, decoded once / our step",
    "data path alone / our step",
    "peak memory",
    "fast: our step",
    "fast: our step: data",
    "fast: our step: augmentation",
    "fast: our step: teacher",
    "fast: our step: forward",
    "fast: our step: backward",
    "fast: our step: optimiser",
    "fast: our rate / matmul rate",
    "fast: augmentation / our step",
)


def throughput_table(results: dict[str, Any]) -> list[str]:
    """The benchmark's rows that matter to a reader; all are in the file."""
    lines = [
        "| measured (DANN step, 64 + 64 images; `fast`: 128 + 128) | case | median | range | n |",
        "|---|---|---|---|---|",
    ]
    for row in (row for name in HEADLINES for row in results["rows"] if row["name"] == name):
        extent = f"{row['min']:.3g} to {row['max']:.3g}" if row["n"] > 1 else ""
        lines.append(f"| {row['name']} | {row['case']} | {row['value']:.3g} {row['unit']} | {extent} | {row['n']} |")
    return lines


def precision_table(results: dict[str, Any]) -> list[str]:
    """The same system in both precisions; no seconds: speed is measured by the benchmark."""
    lines = ["| task | system | target, last epoch | source | n |", "|---|---|---|---|---|"]
    for summary in summarise(results["rows"]):
        last = summary.target["last"]
        lines.append(
            f"| {summary.task} | {summary.recipe} | {last.percent()} | {summary.source.percent()} | {last.n} |"
        )
    return lines


def headline_table(results: dict[str, Any]) -> list[str]:
    """The project's own recipes below the published system: its published number, and its number here."""
    reproduced = {
        summary.task: summary for summary in summarise(_load("reproduction")["rows"]) if summary.recipe == "mani"
    }
    lines = [
        "| system | variant | target, last epoch | target, selected epoch | *oracle epoch* | source | n | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        f"| MaNi, as published | resampled | {PUBLISHED['mani']} | | | | | |",
    ]
    rows = [(f"MaNi, here ([section]({SECTION}))", reproduced["mnist-mnistm-resampled"], "resampled")]
    rows += [(f"MaNi, here ([section]({SECTION}))", reproduced["mnist-mnistm"], "frozen")]
    rows += [(f"`{summary.recipe}`", summary, "frozen") for summary in summarise(results["rows"])]
    for name, summary, variant in rows:
        selected = next(interval for key, interval in summary.target.items() if key.startswith("validator:"))
        last, oracle = summary.target["last"], summary.target["oracle"]
        digits = 2 if last.n > 1 else 1
        cells = [name, variant, f"**{last.percent(digits)}**", selected.percent(digits), f"*{oracle.percent(digits)}*"]
        cells += [summary.source.percent(digits), f"{last.n}", f"{summary.seconds:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def speed_table(results: dict[str, Any]) -> list[str]:
    """Seconds of training until each goal; empty where it was not reached."""
    goals = list(results["rows"][0]["seconds"])
    columns = ["system", *(f"seconds to {goal} %" for goal in goals), "at the end", "seed"]
    lines = [columns, ["---"] * len(columns)]
    for row in results["rows"]:
        times = ["" if row["seconds"][goal] is None else f"{row['seconds'][goal]:.0f}" for goal in goals]
        seconds, accuracy = row["curve"][-1]
        end = f"{100 * accuracy:.2f} % at {seconds:.0f} s" + ("" if row["complete"] else " (given up)")
        lines.append([row["recipe"], *times, end, str(row["seed"])])
    return [f"| {' | '.join(line)} |" for line in lines]


def scaling_table(results: dict[str, Any]) -> list[str]:
    """An epoch's seconds and the peak memory by the number of images."""
    lines = [
        "| images | seconds an epoch | peak memory, MiB | time / images | added memory / added data |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        growth = [f"{row[key]:.2f}" if key in row else "" for key in ("time_over_images", "memory_over_data")]
        lines.append(
            f"| {row['images']:,} | {row['epoch_seconds']:.1f} | {row['peak_mib']:.0f} | {' | '.join(growth)} |"
        )
    return lines


def _load(name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return results


def validators_table(results: dict[str, Any]) -> list[str]:
    """Points of target accuracy that each validator loses, over all runs of the file."""
    lines = [
        "| validator | rank correlation | epoch: lost on average | at worst | recipe: lost on average | at worst |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for line in results["summary"]:
        correlated = "" if line["rank_correlation"] is None else f"{line['rank_correlation']:.2f}"
        losses = (f"{line[key]:.2f}" for key in ("epoch_mean", "epoch_worst", "recipe_mean", "recipe_worst"))
        lines.append(f"| {line['validator'].replace('_', ' ')} | {correlated} | {' | '.join(losses)} |")
    return lines


def estimates_table(results: dict[str, Any]) -> list[str]:
    """Errors of each estimator, and how often its interval held the true accuracy."""
    lines = [
        "| estimator | mean absolute error | worst | interval holds | its mean width | n |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for line in results["summary"]:
        points = " | ".join(f"{line[key]:.1f}" for key in ("mean_absolute_error", "worst_error"))
        holds, width = f"{100 * line['intervals_hold']:.0f} %", f"{line['mean_width']:.1f}"
        lines.append(f"| {line['estimator'].replace('_', ' ')} | {points} | {holds} | {width} | {line['n']} |")
    return lines


def alarms_table(results: dict[str, Any]) -> list[str]:
    """A line a recipe and task: how many of its runs raised which alarm."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in results["rows"]:
        groups.setdefault((row["task"], row["recipe"]), []).append(row)
    lines = ["| task | recipe | n | target accuracy, last epoch | alarms |", "| --- | --- | --- | --- | --- |"]
    for (task, recipe), rows in groups.items():
        accuracies = [100 * row["target_accuracy"] for row in rows]
        extent = f"{min(accuracies):.1f} to {max(accuracies):.1f}" if len(rows) > 1 else f"{accuracies[0]:.1f}"
        names = [name for row in rows for name in row["alarms"]]
        told = ", ".join(f"{name} ({names.count(name)} of {len(rows)})" for name in dict.fromkeys(names))
        lines.append(f"| {task} | {recipe} | {len(rows)} | {extent} | {told or 'none'} |")
    return lines


def own_images_table(results: dict[str, Any]) -> list[str]:
    """Systems trained from folders, those of MNIST before the same by the task's name; then what loading costs."""
    own = [row for row in results["rows"] if row["task"] == "mnist-to-mnistm"]
    named = [
        row | {"task": "the same by its name"}
        for name in ("headline", "reproduction")
        for row in _load(name)["rows"]
        if row["task"] == "mnist-mnistm" and row["recipe"] in {row["recipe"] for row in own}
    ]
    others = [row for row in results["rows"] if row not in own]
    lines = [*accuracy_table({"rows": [*own, *named, *others]}), ""]
    lines += ["| from PNG files | images | seconds | images a second |", "| --- | --- | --- | --- |"]
    for row in results["timings"]:
        lines.append(f"| {row['name']} | {row['images']:,} | {row['seconds']:.1f} | {row['images_per_second']:,} |")
    return lines


def faults_table(results: dict[str, Any]) -> list[str]:
    """How many faults were injected to try each promise, and how many it survived."""
    lines = ["| promise | faults injected | survived |", "| --- | --- | --- |"]
    return lines + [f"| {row['promise']} | {row['injected']:,} | {row['survived']:,} |" for row in results["rows"]]


TABLES = {
    "faults": faults_table,
    "own-images": own_images_table,
    "estimates": estimates_table,
    "alarms": alarms_table,
    "validators": validators_table,
    "headline": headline_table,
    "speed": speed_table,
    "scaling": scaling_table,
    "other-pairs": accuracy_table,
    "ablation": accuracy_table,
    "reproduction": accuracy_table,
    "digits": accuracy_table,
    "precision": precision_table,
    "throughput": throughput_table,
}


def table(name: str) -> str:
    """A table with the line that every number needs: command, hardware, commit, file."""
    results = _load(name)
    commits = ", ".join(part.strip()[:7] for part in results["commit"].split(","))
    about = (
        f"`{results['command']}`; {results['hardware']}; commit {commits}; [results/{name}.json](results/{name}.json)"
    )
    return "\n".join([*TABLES[name](results), "", f"<sub>{about}</sub>", ""])


def filled(readme: str) -> str:
    """The README with every table generated anew."""
    return BLOCK.sub(lambda match: match[1] + table(match[2]) + match[3], readme)


def main() -> int:
    """Write the tables into the README, or with --check say whether they are up to date."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    new = filled(text)
    if "--check" in sys.argv[1:]:
        if new != text:
            print("README.md: tables are not those of results/; run `make readme`", file=sys.stderr)
        return int(new != text)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
