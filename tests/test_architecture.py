"""The house rules that a machine can check: the floors, no import cycles, small files, and who may do what."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mutualign"
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

# A folder imports only from its own floor or below; the lowest first. docs/images/floors.svg is drawn from this list.
FLOORS: list[dict[str, str]] = [
    {"errors": "the one exception that users see"},
    {"io": "TOML, JSON and tensor files; atomic writes"},
    {"nn": "backbones, heads, layers, losses, schedules"},
    {"data": "image types, datasets, folders, downloads"},
    {"methods": "the contract; one file per method"},
    {"recipes": "what is trained, as TOML"},
    {"training": "the loop, optimisers, batches, processes"},
    {"evaluation": "measurement, validators, estimators, audit"},
    {"runs": "experiments, comparisons, run folders"},
    {
        "report": "HTML pages of finished runs",
        "export": "ONNX, torch.export, safetensors",
        "demo": "a web page of finished runs",
    },
    {"estimator": "DomainAdapter, as in scikit-learn"},
    {"cli": "one file per group of commands"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FLOOR_OF["__init__"] = FLOOR_OF["cli"]  # the public API, which gives the command line its version

OLD_WORDS = re.compile(r"\b(told|tells|beside|anew|of old|goes on)\b", re.IGNORECASE)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the modules that a file imports from the package, with line numbers; `if TYPE_CHECKING` is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.startswith("mutualign"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mutualign"):
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield deeper if file_of(deeper) else node.module, node.lineno
        else:
            yield from imports(node)


def file_of(module: str) -> str | None:
    """Return the file of a dotted module name: `mutualign.nn.heads` is `nn/heads.py`."""
    path = "/".join(module.split(".")[1:])
    return next((name for name in (f"{path}.py", f"{path}/__init__.py".lstrip("/")) if name in MODULES), None)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one node, or with an edge to itself (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            component = sorted(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            if len(component) > 1 or node in graph.get(node, ()):
                found.append(component)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_a_folder_imports_only_from_its_own_floor_or_below():
    faults = []
    for name, tree in TREES.items():
        room = name.split("/")[0].removesuffix(".py")
        if room in ("__init__", "__main__"):  # the public API and the entry point stand above all floors
            continue
        for module, line in imports(tree):
            other = module.split(".")[1] if "." in module else "__init__"
            neighbours = {other, room} <= {"report", "export", "demo"} and other != room
            if other not in FLOOR_OF or FLOOR_OF[other] > FLOOR_OF[room] or neighbours:
                faults.append(f"{name}, line {line} imports {module}")
    assert faults == []


def test_every_room_is_on_a_floor_and_the_package_root_holds_nothing_else():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", "errors"}
    assert {name.split("/")[0] for name in MODULES if "/" in name} | {"errors", "__init__"} == set(FLOOR_OF)


def test_cycles_are_found_in_a_graph_that_has_them():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "f": {"f"}}) == [["a", "b", "c"], ["f"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_each_other_in_a_circle_not_even_within_functions():
    graph = {name: {file for module, _ in imports(tree) if (file := file_of(module))} for name, tree in TREES.items()}
    assert sum(map(len, graph.values())) > len(graph)  # the graph is not empty for a reason of its own
    assert cycles(graph) == []


def test_a_file_says_first_what_it_holds_and_has_300_lines_at_most():
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []
    assert {name: n for name, path in MODULES.items() if (n := len(path.read_text().splitlines())) > 300} == {}


def test_only_one_file_opens_target_labels():
    uses = attribute_uses({"reveal_labels", "hidden_labels"})
    assert uses == {"reveal_labels": {"evaluation/target_labels.py"}, "hidden_labels": {"data/types.py"}}


def test_generators_are_kept_by_the_one_function_that_starts_no_gpu_for_work_on_the_cpu():
    assert attribute_uses({"fork_rng"}) == {"fork_rng": {"nn/randomness.py"}}


def attribute_uses(names: set[str]) -> dict[str, set[str]]:
    """Return the files that use an attribute of one of the names."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in names:
                found[node.attr].add(name)
    return found


def test_backward_and_optimiser_steps_are_in_the_training_loop_only():
    calls = defaultdict(set)
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value).lower()
                if node.func.attr == "backward" or (node.func.attr == "step" and re.search("optim", owner)):
                    calls[node.func.attr].add(name)
    assert calls == {"backward": {"training/loop.py"}, "step": {"training/loop.py"}}


def test_commands_for_users_to_paste_name_the_plugins():
    """Those that repeat what the user typed, `this_command`, hold them already."""
    built = {
        (name, ast.unparse(node))
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node).startswith("shell_command('mutualign'")
    }
    assert built == {("io/plugins.py", "shell_command('mutualign', *words, *options)")}


def test_the_package_is_written_in_plain_modern_english():
    texts = [path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".toml", ".html", ".js", ".css"}]
    lines = [
        f"{path.relative_to(PACKAGE)}, line {number}: {line.strip()}"
        for path in sorted(texts)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if OLD_WORDS.search(line)
    ]
    assert len(lines) < 10, "\n".join(lines)
