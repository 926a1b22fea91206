"""Tables of accuracies: recipes on tasks, the published systems, pairs of domains."""

from __future__ import annotations

from mutualign.runs.statistics import Interval, Summary, differences, summarise
from tools.markdown import markdown, table
from tools.results import OFFICE31, PUBLISHED_OFFICE31, Results, load, mean_over_pairs, read_rows

RESAMPLED, FROZEN = "mnist-mnistm-resampled", "mnist-mnistm"
PUBLISHED = {"source_only": "53", "dann": "71", "mani": "87"}  # target accuracy in %, on the variant `resampled`
ACCURACIES = ("target, last epoch", "target, selected epoch", "*oracle epoch*", "source", "n", "seconds")


def accuracies(summary: Summary, digits: int = 1) -> list[str]:
    """Return the cells of `ACCURACIES`."""
    last, selected, oracle = (summary.target_by(kind) for kind in ("last", "validator", "oracle"))
    if not last or not selected or not oracle:
        raise ValueError(f"{summary.recipe} on {summary.task} has no target accuracies")
    cells = [f"**{last.percent(digits)}**", selected.percent(digits), f"*{oracle.percent(digits)}*"]
    return [*cells, summary.source.percent(digits), f"{last.n}", f"{summary.seconds:.0f}"]


@table("digits", "other-pairs", "upper-bound")
def accuracy_table(results: Results) -> list[str]:
    """Recipes on tasks."""
    summaries = summarise(read_rows(results["rows"]))
    return markdown(
        ["task", "recipe", *ACCURACIES],
        [[summary.task, summary.recipe, *accuracies(summary)] for summary in summaries],
    )


@table("reproduction")
def reproduction_table(results: Results) -> list[str]:
    """The published systems, and what MaNi adds; the published numbers belong to the variant `resampled` only."""
    rows, lines = read_rows(results["rows"]), []
    for summary in summarise(rows):
        published = PUBLISHED.get(summary.recipe, "") if summary.task == RESAMPLED else ""
        lines.append([summary.task, summary.recipe, published, *accuracies(summary)])
    gains = differences(row for row in rows if row.recipe in ("dann", "mani"))
    found = [(one.task, gain) for one in gains if (gain := one.target_by("last"))]
    paired = "; ".join(f"{task} {gain.percent(sign='+')} (n = {gain.n})" for task, gain in found)
    added = f"MaNi minus DANN, from which it starts, paired by seed, last epoch: {paired}."
    return [*markdown(["task", "recipe", "published", *ACCURACIES], lines), "", added]


def headline_lines(results: Results) -> list[list[str]]:
    """System, variant and accuracies: MaNi, as published and reproduced; our recipes, after `fast` on source alone."""
    mani = {one.task: one for one in summarise(read_rows(load("reproduction")["rows"])) if one.recipe == "mani"}
    summaries = [("MaNi, here", "resampled", mani[RESAMPLED]), ("MaNi, here", "frozen", mani[FROZEN])]
    (source_only,) = summarise(read_rows(load("source-only-fast")["rows"]))
    summaries.append(("source only, network of `fast`", "frozen", source_only))
    summaries += [(f"`{own.recipe}`", "frozen", own) for own in summarise(read_rows(results["rows"]))]
    lines = [["MaNi, as published", "resampled", PUBLISHED["mani"], "", "", "", "", ""]]
    for system, variant, summary in summaries:
        lines.append([system, variant, *accuracies(summary, 1 if summary.source.n == 1 else 2)])
    return lines


@table("headline")
def headline_table(results: Results) -> list[str]:
    """The project's own recipes below the published system."""
    return markdown(["system", "variant", *ACCURACIES], headline_lines(results))


@table("published", source="headline")
def published_table(results: Results) -> list[str]:
    """The headline in short, for the README."""
    lines = [
        [system, variant, last, n, f"{int(seconds):,}" if seconds else ""]
        for system, variant, last, *_, n, seconds in headline_lines(results)
    ]
    return markdown(["system", "variant of MNIST-M", "target accuracy, %", "n", "seconds of training"], lines)


@table("precision")
def precision_table(results: Results) -> list[str]:
    """The same recipe in both precisions; no seconds, which throughput.json measures."""
    lines = []
    for summary in summarise(read_rows(results["rows"])):
        last, _, _, source, n, _ = accuracies(summary)
        lines.append([summary.task, summary.recipe, last.strip("*"), source, n])
    return markdown(["task", "recipe", "target, last epoch", "source", "n"], lines)


@table("own-images")
def own_images_table(results: Results) -> list[str]:
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


@table("sweep")
def sweep_table(results: Results) -> list[str]:
    """Target accuracy of what a sweep chose, of its best trial by labels, and of the recipe as it was."""
    lines = []
    for row in results["rows"]:
        accuracies = [f"{100 * row[key]:.1f}" for key in ("chosen_accuracy", "best_accuracy", "regret")]
        default = f"{100 * row['default_accuracy']:.1f}"
        trials = f"{row['trials']} ({row['pruned']} pruned)"
        lines.append([row["task"], row["recipe"], trials, *accuracies, default, f"{row['hours']:.2f}"])
    columns = ["task", "recipe", "trials", "chosen", "*best by labels*", "*regret*", "the recipe as it is", "hours"]
    return markdown(columns, lines)


@table("office31", "office31-lite0")
def office31_table(results: Results) -> list[str]:
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


@table("label-shift")
def label_shift_table(results: Results) -> list[str]:
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
