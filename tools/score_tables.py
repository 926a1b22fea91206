"""Tables of scores and estimators: what each says, and its source, from their docstrings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mutualign.evaluation.estimators import ESTIMATORS
from mutualign.evaluation.validators import VALIDATORS
from tools.markdown import markdown, table
from tools.method_tables import escaped, source_of
from tools.results import Results


@table("scores", source="")
def scores_table(_: Results) -> list[str]:
    """All registered validators."""
    return of_functions("score", VALIDATORS)


@table("estimators", source="")
def estimators_table(_: Results) -> list[str]:
    """All registered estimators, the most trusted first."""
    return of_functions("estimator", ESTIMATORS)


def of_functions(kind: str, functions: Mapping[str, Callable[..., Any]]) -> list[str]:
    """Return a line per function: its name, linked to its file, the first line of its docstring, and its source."""
    lines = []
    for name, function in functions.items():
        text = function.__doc__ or ""
        file = f"../../{function.__module__.replace('.', '/')}.py"
        lines.append([f"[`{name}`]({file})", escaped(text.strip().splitlines()[0]), escaped(source_of(text))])
    return markdown([kind, "what it is", "source"], lines)
