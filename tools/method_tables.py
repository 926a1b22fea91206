"""The table of methods: what each does, from its docstring, and what it gains, from the leaderboards."""

from __future__ import annotations

import re

from mutualign.methods import METHODS
from mutualign.methods.describe import explanation, settings_of
from mutualign.recipes.recipe import SOURCE_ONLY
from tools.leaderboard import Board
from tools.markdown import markdown, table
from tools.results import BOARDS, Results, load, read_rows


@table("methods", source="")
def methods_table(_: Results) -> list[str]:
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
