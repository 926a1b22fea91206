"""The house rules that a machine can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mutualign"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A file imports only from its own floor or below; the lowest first.
FLOORS = [
    ("errors", "plain_files", "randomness", "tensor_files"),
    ("nn",),
    ("data",),
    ("methods",),
    ("evidence",),
    ("recipes",),
    ("training",),
    ("examination", "prediction", "records"),
    ("experiment",),
    ("comparison", "estimates"),
    ("display", "report"),
    ("commands",),
    ("cli", "estimator", "__main__"),
]


def floor_of(name: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if name in floor)


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_imports_only_from_its_own_floor_or_below(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mutualign."):
            imported = node.module.split(".")[1]
            assert floor_of(imported) <= floor_of(own), f"line {node.lineno} imports mutualign.{imported}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_says_first_what_it_holds_and_is_about_300_lines_at_most(path):
    assert ast.get_docstring(tree_of(path))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320


def attribute_uses(names: set[str]) -> dict[str, set[str]]:
    """The modules that use an attribute of one of the names."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Attribute) and node.attr in names:
                found.setdefault(node.attr, set()).add(relative(path))
    return found


def test_only_evaluation_opens_target_labels():
    uses = attribute_uses({"reveal_labels", "hidden_labels"})
    assert uses == {"reveal_labels": {"evidence/evaluation.py"}, "hidden_labels": {"data/images.py"}}


def test_backward_and_optimizer_steps_are_in_the_loop_only():
    calls = {
        relative(path)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (node.func.attr == "backward" or (node.func.attr == "step" and "optimizer" in ast.unparse(node.func.value)))
    }
    assert calls == {"training/loop.py"}
