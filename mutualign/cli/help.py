"""Help texts: paragraphs that fit the terminal, and no default where it is nothing or the text names it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import shutil
import textwrap
from itertools import pairwise
from typing import Annotated, Any, get_args, get_type_hints

import tyro

NOTHING = (None, (), False, dataclasses.MISSING)  # defaults that say nothing: `(default: None)`
EXAMPLE = ("Example", " ")  # how lines begin that are not wrapped, so that they can be copied


def tidied(command: Any) -> Any:
    """Return a command, a dataclass, with tidy help: no needless defaults, each option's docstring as one paragraph."""
    hints, texts = get_type_hints(command, include_extras=True), option_texts(command)
    for one in dataclasses.fields(command):
        kind, *settings = get_args(hints[one.name]) if hasattr(hints[one.name], "__metadata__") else (hints[one.name],)
        if dataclasses.is_dataclass(kind):
            tidied(kind)
            continue
        text = texts.get(one.name)
        said = "Default: " in (text or "") or any(one.default is nothing for nothing in NOTHING)
        tidy = tyro.conf.arg(help=text, help_behavior_hint="" if said else None)
        hints[one.name] = Annotated[kind, tidy, *settings]  # before the option's own settings, which replace it
    command.__annotations__ = hints
    return command


def option_texts(command: type) -> dict[str, str]:
    """Return the string below each field of a class, on one line: tyro would keep some of its line breaks."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(command))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }


def wrapped(text: str) -> str:
    r"""Wrap the paragraphs of a docstring to the terminal's width; examples keep their lines.

    >>> wrapped("Train.\\n\\nOne line.\\nExample: mutualign run")
    'Train.\\n\\nOne line.\\nExample: mutualign run'
    """
    width = max(40, shutil.get_terminal_size().columns)
    blocks = []
    for paragraph in text.strip().split("\n\n"):
        lines: list[str] = []
        for line in paragraph.splitlines():
            if lines and not line.startswith(EXAMPLE) and not lines[-1].startswith(EXAMPLE):
                lines[-1] += f" {line}"
            else:
                lines.append(line)
        shown = [
            line if line.startswith(EXAMPLE) else textwrap.fill(line, width, break_on_hyphens=False) for line in lines
        ]
        blocks.append("\n".join(shown))
    return "\n\n".join(blocks)
