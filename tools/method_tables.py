"""Tables of methods: what each does and gains, and its settings and source, from the code and the leaderboards."""

from __future__ import annotations

import dataclasses
import inspect
import re

from mutualign.methods import METHODS
from mutualign.methods.describe import explanation
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
        gains = [board.get(entry.name, "").replace(" ", "\N{NO-BREAK SPACE}") for board in boards.values()]
        lines.append([f"[`{entry.name}`](../{file})", escaped(entry.summary), *gains])
    return markdown(["method", "idea", *(f"gain, {board.rpartition('-')[2]}" for board in boards)], lines)


@table("method-groups", source="")
def groups_table(_: Results) -> list[str]:
    """Groups of settings that several methods share, each with its own defaults."""
    found = {
        field.name: type(value)
        for entry in METHODS.values()
        for field, value in fields(entry.config())
        if dataclasses.is_dataclass(value)
    }
    lines = [
        [f"`{name}`", inspect.getdoc(group).partition("\n")[0], ", ".join(settings(group()))]
        for name, group in found.items()
    ]
    return markdown(["group", "what it sets", "settings and defaults"], lines)


@table("method-settings", source="")
def settings_table(_: Results) -> list[str]:
    """The settings of each method with their defaults, and its source."""
    lines = [
        [f"`{entry.name}`", ", ".join(settings(entry.config())) or "none", escaped(source_of(explanation(entry)))]
        for entry in METHODS.values()
    ]
    return markdown(["method", "settings and defaults", "source"], lines)


def settings(config: object) -> list[str]:
    """Return the settings of a config with their values; of a group only what differs from the group's defaults."""
    found = []
    for field, value in fields(config):
        if dataclasses.is_dataclass(value):
            changed = [one for one, usual in zip(settings(value), settings(type(value)()), strict=True) if one != usual]
            found.append(f"`{field.name}`" + (f" ({', '.join(changed)})" if changed else ""))
        else:
            found.append(f"`{field.name}` {value}")
    return found


def fields(config: object) -> list[tuple[dataclasses.Field, object]]:
    """Return the fields of a config with their values."""
    return [(field, getattr(config, field.name)) for field in dataclasses.fields(config)]


def source_of(docstring: str) -> str:
    """Return the sentence that a docstring has about its source; "" if it has none."""
    found = re.search(r"\bSources?: (.*?\.)(?= [A-Z]|$)", " ".join(docstring.split()))
    return found[1] if found else ""


def escaped(text: str) -> str:
    """Escape what would end a cell."""
    return text.replace("|", "\\|")


def mean_gains(board: str) -> dict[str, str]:
    """Return the gain of each method over source only at the last epoch, averaged over the tasks of a board."""
    standings = Board.of(read_rows(load(board)["rows"])).standings()
    return {one.method: one.gains["last"].percent(sign="+") for one in standings if one.method != SOURCE_ONLY}
