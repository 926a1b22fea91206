"""Tables of gains: differences of target accuracy, paired by seed, of methods, losses and recipes."""

from __future__ import annotations

from mutualign.recipes import load_recipe
from mutualign.recipes.recipe import SOURCE_ONLY
from mutualign.runs.statistics import Interval, summarise
from tools.leaderboard import Board, certain
from tools.markdown import markdown, table
from tools.results import BOARDS, ROOT, Results, by_variant, read_rows


def gain_cell(interval: Interval) -> str:
    """A gain with its interval, bold if this excludes zero."""
    return _cell(interval, bold=interval.excludes_zero)


def _cell(interval: Interval, *, bold: bool) -> str:
    text = interval.percent(sign="+")
    return f"**{text}**" if bold else text


# The leaderboard ------------------------------------------------------------------------------------------------------


@table(*BOARDS)
def standings_table(results: Results) -> list[str]:
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


@table("leaderboard-photos-tasks", source="leaderboard-photos")
def gains_table(results: Results) -> list[str]:
    """What each method gains over source only on each task at the last epoch; source only with its accuracy."""
    board = Board.of(read_rows(results["rows"]))
    gains = board.gains()
    accuracy = {one.task: one for one in summarise(board.rows) if one.recipe == SOURCE_ONLY}
    found = [interval for task in board.tasks if (interval := accuracy[task].target_by("last"))]
    lines = [["`source_only`, accuracy", *(interval.percent() for interval in found)]]
    for one in board.standings():
        if one.method != SOURCE_ONLY:
            own = [gains[one.method, task] for task in board.tasks]
            lines.append([f"`{one.method}`", *(_cell(gain, bold=certain(gain)) for gain in own)])
    return markdown(["method", *(task.removeprefix("office31:") for task in board.tasks)], lines)


# Parts of a recipe, and recipes ---------------------------------------------------------------------------------------


@table("informations")
def informations_table(results: Results) -> list[str]:
    """Accuracy without both mutual informations, and what each adds alone and to the other; certain gains are bold."""
    lines, names = [], results["summary"][0]["gains"]
    for one in results["summary"]:
        gains = (gain_cell(Interval.of(values)) for values in one["gains"].values())
        rare = "15 % of half the classes" if one["label_shift"] else "all"
        neither = Interval.of(one["neither"])
        n = f"{neither.n} ({one['unit']}" + (f", {one['runs']} runs)" if one["runs"] > neither.n else ")")
        lines.append([one["task"], rare, one["others"], neither.percent(), *gains, n])
    gained = [name.replace("labels", "image-label").replace("pairs", "image-image") for name in names]
    return markdown(["task", "target images", "other losses on the target", "neither", *gained, "n"], lines)


@table("ablation")
def ablation_table(results: Results) -> list[str]:
    """What each change to `fast` does to its target accuracy on the first variant, paired by seed."""
    by_recipe = next(iter(by_variant(results).values()))
    whole, lines = by_recipe["fast"], []
    for name, found in by_recipe.items():
        recipe = load_recipe(name if name == "fast" else f"{ROOT}/benchmarks/ablation/{name}.toml")
        change = gain_cell(Interval.of([found[seed] - whole[seed] for seed in found])) if found is not whole else ""
        what = "`fast`" if name == "fast" else recipe.description.removeprefix("fast ").removesuffix(".")
        lines.append([what, Interval.of(list(found.values())).percent(), change, f"{len(found)}"])
    return markdown(["`fast` ...", "target accuracy, %", "against `fast`", "n"], lines)


@table("variants")
def variants_table(results: Results) -> list[str]:
    """Target accuracy of recipes on variants of MNIST-M, and the gains of the first one, paired by seed."""
    first, *others = dict.fromkeys(row["recipe"] for row in results["rows"])
    lines = []
    for variant, by_recipe in by_variant(results).items():
        own = by_recipe[first]
        cells = [Interval.of(list(by_recipe[name].values())).percent() for name in (*others, first)]
        gains = [gain_cell(Interval.of([own[seed] - by_recipe[name][seed] for seed in own])) for name in others]
        lines.append([variant, *cells, *gains, f"{len(own)}"])
    columns = [*(f"`{name}`" for name in (*others, first)), *(f"`{first}` - `{name}`" for name in others)]
    return markdown(["variant", *columns, "n"], lines)
