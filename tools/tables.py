"""Generate the tables of README.md and docs/*.md from results/*.json: `python tools/tables.py [--check]`."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from mutualign.io.typed import parse_typed, to_plain
from mutualign.methods import METHODS
from mutualign.methods.describe import explanation, settings_of
from mutualign.recipes import load_recipe
from mutualign.recipes.recipe import SOURCE_ONLY
from mutualign.runs.history import Selection
from mutualign.runs.rows import Row
from mutualign.runs.statistics import Interval, Summary, summarise
from tools.blind_tables import BLIND_TABLES, split_lines
from tools.leaderboard import Board

ROOT = Path(__file__).parents[1]
GOALS = (0.87, 0.97, 0.985)  # target accuracies on MNIST-M
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
RESAMPLED, FROZEN = "mnist-mnistm-resampled", "mnist-mnistm"
PUBLISHED = {"source_only": "53", "dann": "71", "mani": "87"}  # target accuracy in %, on the variant `resampled`


def load(name: str) -> dict[str, Any]:
    """Read results/NAME.json."""
    results: dict[str, Any] = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return results


def read_rows(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Convert the rows of a results file that `mutualign compare` wrote."""
    parsed = ({**row, "selection": to_plain(Selection.parse(row["selection"]))} for row in rows)
    return [parse_typed(row, Row, "results") for row in parsed]


def markdown(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Format a table as lines of Markdown."""
    return [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *lines)]


# Accuracy -------------------------------------------------------------------------------------------------------------

ACCURACIES = ("target, last epoch", "target, selected epoch", "*oracle epoch*", "source", "n", "seconds")


def accuracies(summary: Summary, digits: int = 1) -> list[str]:
    """Return the cells of `ACCURACIES`."""
    last, selected, oracle = (summary.target_by(kind) for kind in ("last", "validator", "oracle"))
    if not last or not selected or not oracle:
        raise ValueError(f"{summary.recipe} on {summary.task} has no target accuracies")
    cells = [f"**{last.percent(digits)}**", selected.percent(digits), f"*{oracle.percent(digits)}*"]
    return [*cells, summary.source.percent(digits), f"{last.n}", f"{summary.seconds:.0f}"]


def accuracy_table(results: Mapping[str, Any]) -> list[str]:
    """Recipes on tasks."""
    summaries = summarise(read_rows(results["rows"]))
    return markdown(
        ["task", "recipe", *ACCURACIES],
        [[summary.task, summary.recipe, *accuracies(summary)] for summary in summaries],
    )


def reproduction_table(results: Mapping[str, Any]) -> list[str]:
    """The published systems; the published numbers belong to the variant `resampled` only."""
    lines = []
    for summary in summarise(read_rows(results["rows"])):
        published = PUBLISHED.get(summary.recipe, "") if summary.task == RESAMPLED else ""
        lines.append([summary.task, summary.recipe, published, *accuracies(summary)])
    return markdown(["task", "recipe", "published", *ACCURACIES], lines)


def headline_summaries(results: Mapping[str, Any]) -> list[tuple[str, str, Summary]]:
    """Return system, variant and summary: MaNi as reproduced, then the project's own recipes."""
    mani = {one.task: one for one in summarise(read_rows(load("reproduction")["rows"])) if one.recipe == "mani"}
    own = summarise(read_rows(results["rows"]))
    reproduced = [("MaNi, here", "resampled", mani[RESAMPLED]), ("MaNi, here", "frozen", mani[FROZEN])]
    return reproduced + [(f"`{summary.recipe}`", "frozen", summary) for summary in own]


def headline_table(results: Mapping[str, Any]) -> list[str]:
    """The project's own recipes below the published system."""
    lines = [["MaNi, as published", "resampled", PUBLISHED["mani"], "", "", "", "", ""]]
    for name, variant, summary in headline_summaries(results):
        lines.append([name, variant, *accuracies(summary, 1 if summary.source.n == 1 else 2)])
    return markdown(["system", "variant", *ACCURACIES], lines)


def published_table(results: Mapping[str, Any]) -> list[str]:
    """The headline in short, for the README."""
    lines = [["MaNi, as published", "resampled", PUBLISHED["mani"], "", ""]]
    for name, variant, summary in headline_summaries(results):
        last, *_, n, seconds = accuracies(summary, 1 if summary.source.n == 1 else 2)
        lines.append([name, variant, last, n, f"{float(seconds):,.0f}"])
    return markdown(["system", "variant of MNIST-M", "target accuracy, %", "n", "seconds of training"], lines)


def precision_table(results: Mapping[str, Any]) -> list[str]:
    """The same recipe in both precisions; no seconds, which throughput.json measures."""
    lines = []
    for summary in summarise(read_rows(results["rows"])):
        last, _, _, source, n, _ = accuracies(summary)
        lines.append([summary.task, summary.recipe, last.strip("*"), source, n])
    return markdown(["task", "recipe", "target, last epoch", "source", "n"], lines)


def own_images_table(results: Mapping[str, Any]) -> list[str]:
    """Recipes on images from folders, then loading times."""
    timings = [
        [row["name"], f"{row['images']:,}", f"{row['seconds']:.1f}", f"{row['images_per_second']:,}"]
        for row in results["timings"]
    ]
    return [
        *accuracy_table(results),
        "",
        *markdown(["from PNG files", "images", "seconds", "images per second"], timings),
    ]


# Photos ---------------------------------------------------------------------------------------------------------------

OFFICE31 = ("amazon-webcam", "amazon-dslr", "webcam-amazon", "webcam-dslr", "dslr-amazon", "dslr-webcam")
PUBLISHED_OFFICE31 = {  # ResNet-50, fine-tuned; the mean is that of the papers, over all six pairs
    "DANN, published": ("82.0", "79.7", "67.4", "", "68.2", "", "82.2"),
    "SHOT, published": ("90.1", "94.0", "74.3", "", "74.7", "", "88.6"),
}


def office31_table(results: Mapping[str, Any]) -> list[str]:
    """Target accuracy at the last epoch by pair of domains; the means over the pairs, with intervals over seeds."""
    rows = read_rows(results["rows"])
    summaries = {(one.task, one.recipe): one for one in summarise(rows)}
    lines = []
    for recipe in dict.fromkeys(row.recipe for row in rows):
        pairs = [summaries[f"office31:{pair}", recipe] for pair in OFFICE31]
        cells = [interval.percent() for one in pairs if (interval := one.target_by("last"))]
        means = [mean_over_pairs(rows, recipe, kind) for kind in ("last", "validator")]
        seconds = sum(one.seconds for one in pairs) / len(pairs)
        mean, selected = (interval.percent() for interval in means)
        lines.append([f"`{recipe}`", *cells, f"**{mean}**", selected, str(means[0].n), f"{seconds:.0f}"])
    lines += [[name, *cells, "", "", ""] for name, cells in PUBLISHED_OFFICE31.items()]
    pairs_of_domains = (pair.replace("-", " → ") for pair in OFFICE31)
    return markdown(["system", *pairs_of_domains, "mean", "mean, selected epoch", "n", "seconds"], lines)


def label_shift_table(results: Mapping[str, Any]) -> list[str]:
    """Target accuracy by pair of domains where half of the target's classes are rare or absent."""
    rows, lines = results["rows"], []
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    for pair in OFFICE31:
        cells = [pair.replace("-", " → ")]
        for share in dict.fromkeys(row["share"] for row in rows):
            for recipe in recipes:
                own = [row for row in rows if (row["pair"], row["share"], row["recipe"]) == (pair, share, recipe)]
                cells.append(Interval.of([row["target_accuracy"] for row in own]).percent())
        lines.append(cells)
    heads = [f"{kept}, `{recipe}`" for kept in ("15 % of 16 classes", "none of them") for recipe in recipes]
    return markdown(["pair", *heads], lines)


def informations_table(results: Mapping[str, Any]) -> list[str]:
    """Accuracy without both mutual informations, and what each adds alone and to the other; certain gains are bold."""
    lines = []
    for one in results["summary"]:
        gains = (_gain(Interval.of(values)) for values in one["gains"].values())
        rare = "15 % of half the classes" if one["label_shift"] else "all"
        neither = Interval.of(one["neither"])
        n = f"{neither.n} ({one['unit']}" + (f", {one['runs']} runs)" if one["runs"] > neither.n else ")")
        lines.append([one["task"], rare, one["others"], neither.percent(), *gains, n])
    columns = ["task", "target images", "other losses on the target", "neither", *results["summary"][0]["gains"], "n"]
    return markdown(columns, lines)


def mean_over_pairs(rows: Sequence[Row], recipe: str, kind: str) -> Interval:
    """Return the target accuracy averaged over the pairs of Office-31, with its interval over seeds."""
    own = [row for row in rows if row.recipe == recipe and row.selection.kind == kind]
    by_seed: dict[int, list[float]] = {}
    for row in own:
        by_seed.setdefault(row.seed, []).append(row.target_accuracy or 0.0)
    if any(len(found) != len(OFFICE31) for found in by_seed.values()):
        raise ValueError(f"a seed of {recipe} does not have all pairs of Office-31")
    return Interval.of([sum(found) / len(found) for found in by_seed.values()])


# Leaderboard ----------------------------------------------------------------------------------------------------------

BOARDS = {"leaderboard-photos": "Office-31", "leaderboard-digits": "digits"}  # results files, and what they are called


def standings_table(results: Mapping[str, Any]) -> list[str]:
    """All methods by mean rank: gains over source only, averaged over tasks, and on how many tasks they are certain."""
    board = Board.of(read_rows(results["rows"]))
    lines = []
    for one in board.standings():
        last, selected, oracle = (one.gains[kind].percent(sign="+") for kind in ("last", "validator", "oracle"))
        certain = [f"{one.better} of {one.tasks}", f"{one.worse} of {one.tasks}"]
        if one.method == SOURCE_ONLY:
            last, selected, oracle, *certain = [""] * 5
        lines.append([f"`{one.method}`", f"{one.rank:.1f}", last, selected, oracle, *certain, f"{one.cost:.1f}"])
    gains = ("gain, last epoch", "gain, selected epoch", "*gain, oracle epoch*")
    columns = ["method", "mean rank", *gains, "better on", "worse on", "time / source only"]
    return [*markdown(columns, lines), "", *verdict(board)]


def gains_table(results: Mapping[str, Any]) -> list[str]:
    """What each method gains over source only on each task at the last epoch; source only with its accuracy."""
    board = Board.of(read_rows(results["rows"]))
    gains = board.gains()
    accuracy = {one.task: one for one in summarise(board.rows) if one.recipe == SOURCE_ONLY}
    found = [interval for task in board.tasks if (interval := accuracy[task].target_by("last"))]
    lines = [["`source_only`, accuracy", *(interval.percent() for interval in found)]]
    for one in board.standings():
        if one.method != SOURCE_ONLY:
            cells = [gains[one.method, task] for task in board.tasks]
            lines.append([f"`{one.method}`", *map(_gain, cells)])
    return markdown(["method", *(task.removeprefix("office31:") for task in board.tasks)], lines)


def _gain(interval: Interval) -> str:
    """A gain with its interval, bold if this excludes zero."""
    text = interval.percent(sign="+")
    return f"**{text}**" if interval.excludes_zero else text


def verdict(board: Board) -> list[str]:
    """Which methods are better than source only on no task, which are worse on one, and what the board cost."""
    standings = [one for one in board.standings() if one.method != SOURCE_ONLY]
    never = ", ".join(f"`{one.method}`" for one in standings if not one.better)
    worse = ", ".join(f"`{one.method}`" for one in standings if one.worse)
    runs = [row.train_seconds for row in board.rows if row.selection.kind == "last"]
    return [
        f"Better than source only on no task: {never or 'none'}. Worse on at least one: {worse or 'none'}.",
        f"{len(runs)} runs, {sum(runs) / 60:.0f} minutes of training in all.",
    ]


# Methods --------------------------------------------------------------------------------------------------------------


def methods_table(_: Mapping[str, Any]) -> list[str]:
    """All registered methods, from their docstrings, with what they gain in equal conditions."""
    boards = {board: mean_gains(board) for board in BOARDS}
    lines = []
    for entry in METHODS.values():
        file = f"mutualign/methods/{entry.method.__module__.rsplit('.', 1)[-1]}.py"
        settings = ", ".join(f"`{name}` {default}" for name, default in settings_of(entry).items())
        text = " ".join(explanation(entry).split())
        source = found[1] if (found := re.search(r"\bSources?: (.*)", text)) else ""
        link = f"[`{entry.name}`](../{file})"
        summary, source = (cell.replace("|", "\\|") for cell in (entry.summary, source))
        gains = [board.get(entry.name, "") for board in boards.values()]
        lines.append([link, summary, settings or "none", *gains, source])
    heads = [f"gain, {board.rpartition('-')[2]}" for board in boards]
    return markdown(["method", "idea", "settings and defaults", *heads, "source"], lines)


def mean_gains(board: str) -> dict[str, str]:
    """Return the gain of each method over source only at the last epoch, averaged over the tasks of a board."""
    standings = Board.of(read_rows(load(board)["rows"])).standings()
    return {one.method: one.gains["last"].percent(sign="+") for one in standings if one.method != SOURCE_ONLY}


# Speed ----------------------------------------------------------------------------------------------------------------

THROUGHPUT = (
    *("our step", "our rate / matmul rate", "plain step, decoded an item / our step"),
    *("plain step, decoded once / our step", "data path alone / our step", "peak memory", "fast: our step"),
    *("fast: our step: data", "fast: our step: augmentation", "fast: our step: teacher", "fast: our step: forward"),
    *("fast: our step: backward", "fast: our step: optimiser", "fast: our rate / matmul rate"),
    "fast: augmentation / our step",
)


def throughput_table(results: Mapping[str, Any]) -> list[str]:
    """The main rows of the benchmark; all are in the file."""
    lines = []
    for row in (row for name in THROUGHPUT for row in results["rows"] if row["name"] == name):
        extent = f"{row['min']:.3g} to {row['max']:.3g}" if row["n"] > 1 else ""
        lines.append([row["name"], row["case"], f"{row['value']:.3g} {row['unit']}", extent, str(row["n"])])
    columns = ["measured (DANN step, 64 + 64 images; `fast`: 128 + 128)", "case", "median", "range", "n"]
    return markdown(columns, lines)


def measured_table(results: Mapping[str, Any]) -> list[str]:
    """All rows of a benchmark that measures in rounds, with what is required of them."""
    lines = []
    for row in results["rows"]:
        extent = f"{row['min']:.3g} to {row['max']:.3g}" if row["n"] > 1 else ""
        required = f"{row['required']}: {'met' if row['met'] else '**not met**'}" if "required" in row else ""
        value = f"{row['value']:.3g} {row['unit']}"
        lines.append([row["name"], row["case"], value, extent, str(row["n"]), required])
    return markdown(["measured", "case", "median", "range", "n", "required"], lines)


def speed_table(results: Mapping[str, Any]) -> list[str]:
    """Seconds of training at the end of the first epoch that reaches each goal: median and range over the seeds."""
    curves: dict[str, list[dict[str, list[float]]]] = {}
    for row in results["rows"]:
        if "curves" in row:
            curves.setdefault(row["recipe"], []).append(row["curves"])
    lines = []
    for recipe, runs in curves.items():
        cells = [_seconds_to(goal, runs) for goal in GOALS]
        lines.append([f"`{recipe}`", *cells, f"{len(runs)}"])
    return markdown(["recipe", *(f"seconds to {100 * goal:g} %" for goal in GOALS), "n"], lines)


def _seconds_to(goal: float, runs: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """The seconds to a goal, and how many runs reach it if not all do; empty if none does."""
    epochs = (zip(run["train_seconds"], run["target_accuracy"], strict=True) for run in runs)
    firsts = (next((seconds for seconds, accuracy in run if accuracy >= goal), None) for run in epochs)
    reached = [first for first in firsts if first is not None]
    if not reached:
        return ""
    of_all = "" if len(reached) == len(runs) else f", {len(reached)} of {len(runs)} runs"
    return f"{median(reached):.0f} ({min(reached):.0f} to {max(reached):.0f}{of_all})"


def scaling_table(results: Mapping[str, Any]) -> list[str]:
    """Seconds per epoch and peak memory by the number of images."""
    lines = []
    for row in results["rows"]:
        growth = [f"{row[key]:.2f}" if key in row else "" for key in ("time_over_images", "memory_over_data")]
        lines.append([f"{row['images']:,}", f"{row['epoch_seconds']:.1f}", f"{row['peak_mib']:.0f}", *growth])
    columns = ["images", "seconds per epoch", "peak memory, MiB", "time / images", "added memory / added data"]
    return markdown(columns, lines)


def sweep_table(results: Mapping[str, Any]) -> list[str]:
    """Target accuracy of what a sweep chose, of its best trial by labels, and of the recipe as it was."""
    lines = []
    for row in results["rows"]:
        accuracies = [f"{100 * row[key]:.1f}" for key in ("chosen_accuracy", "best_accuracy", "regret")]
        default = f"{100 * row['default_accuracy']:.1f}"
        trials = f"{row['trials']} ({row['pruned']} pruned)"
        lines.append([row["task"], row["recipe"], trials, *accuracies, default, f"{row['hours']:.2f}"])
    columns = ["task", "recipe", "trials", "chosen", "*best by labels*", "*regret*", "the recipe as it is", "hours"]
    return markdown(columns, lines)


def by_variant(results: Mapping[str, Any]) -> dict[str, dict[str, dict[int, float]]]:
    """Return the target accuracies of `benchmarks/variants.py` by variant, recipe and seed."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in results["rows"]:
        found.setdefault(row["variant"], {}).setdefault(row["recipe"], {})[row["seed"]] = row["target_accuracy"]
    return found


def ablation_table(results: Mapping[str, Any]) -> list[str]:
    """What each change to `fast` does to its target accuracy on the first variant, paired by seed."""
    by_recipe = next(iter(by_variant(results).values()))
    whole, lines = by_recipe["fast"], []
    for name, found in by_recipe.items():
        recipe = load_recipe(name if name == "fast" else f"{ROOT}/benchmarks/ablation/{name}.toml")
        change = _gain(Interval.of([found[seed] - whole[seed] for seed in found])) if found is not whole else ""
        what = "`fast`" if name == "fast" else recipe.description.removeprefix("fast ").removesuffix(".")
        lines.append([what, Interval.of(list(found.values())).percent(), change, f"{len(found)}"])
    return markdown(["`fast` ...", "target accuracy, %", "against `fast`", "n"], lines)


def variants_table(results: Mapping[str, Any]) -> list[str]:
    """Target accuracy of recipes on variants of MNIST-M, and the gains of the first one, paired by seed."""
    first, *others = dict.fromkeys(row["recipe"] for row in results["rows"])
    lines = []
    for variant, by_recipe in by_variant(results).items():
        own = by_recipe[first]
        cells = [Interval.of(list(by_recipe[name].values())).percent() for name in (*others, first)]
        gains = [_gain(Interval.of([own[seed] - by_recipe[name][seed] for seed in own])) for name in others]
        lines.append([variant, *cells, *gains, f"{len(own)}"])
    columns = [*(f"`{name}`" for name in (*others, first)), *(f"`{first}` - `{name}`" for name in others)]
    return markdown(["variant", *columns, "n"], lines)


# The documents --------------------------------------------------------------------------------------------------------

TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], list[str]]]] = {
    # Name of a block: its results file, "" for none, and the function that formats it.
    "methods": ("", methods_table),
    **{board: (board, standings_table) for board in BOARDS},
    "leaderboard-photos-tasks": ("leaderboard-photos", gains_table),
    **{name: (name, office31_table) for name in ("office31", "office31-lite0")},
    "label-shift": ("label-shift", label_shift_table),
    "informations": ("informations", informations_table),
    "published": ("headline", published_table),
    "headline": ("headline", headline_table),
    "reproduction": ("reproduction", reproduction_table),
    **{name: (name, accuracy_table) for name in ("digits", "other-pairs")},
    "ablation": ("ablation", ablation_table),
    "own-images": ("own-images", own_images_table),
    "precision": ("precision", precision_table),
    "split": ("split", lambda results: markdown(*split_lines(results))),
    "speed": ("headline", speed_table),
    "scaling": ("scaling", scaling_table),
    "sweep": ("sweep", sweep_table),
    "variants": ("variants", variants_table),
    "throughput": ("throughput", throughput_table),
    **{name: (name, measured_table) for name in ("busy", "jobs", "peers")},
    **{
        name.replace("blind", prefix): (source, lambda results, lines=lines: markdown(*lines(results)))
        for prefix, source in (("blind", "blind"), ("photos", "evidence-photos"))
        for name, lines in BLIND_TABLES.items()
    },
}


def table(name: str, folder: str = "") -> str:
    """Return a table and the origin of its numbers: command, hardware, commit, and a link from the given folder."""
    source, formatted = TABLES[name]
    if not source:
        return "\n".join([*formatted({}), ""])
    path = f"results/{source}.json"
    if not (ROOT / path).is_file():
        return f"Not measured yet: {path} does not exist.\n"
    results = load(source)
    commits = ", ".join(part.strip()[:7] for part in results["commit"].split(","))
    link = f"[{path}]({os.path.relpath(path, folder or '.')})"
    origin = f"`{results['command']}`; {results['hardware']}; commit {commits}; {link}"
    return "\n".join([*formatted(results), "", f"<sub>{origin}</sub>", ""])


def filled(text: str, folder: str = "") -> str:
    """Return a document of a folder with all its tables regenerated."""
    return BLOCK.sub(lambda match: match[1] + table(match[2], folder) + match[3], text)


def main() -> int:
    """Write the tables into the documents, or with --check report whether they are up to date."""
    old = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text(encoding="utf-8")
        new = filled(text, path.relative_to(ROOT).parent.as_posix())
        if new != text and "--check" in sys.argv[1:]:
            print(f"{path.name}: tables differ from results/; run `make tables`", file=sys.stderr)
        elif new != text:
            path.write_text(new, encoding="utf-8")
        old.append(new != text)
    return int("--check" in sys.argv[1:] and any(old))


if __name__ == "__main__":
    raise SystemExit(main())
