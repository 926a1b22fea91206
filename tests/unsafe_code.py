"""What in Python source could run code out of a file, or unpack an archive: found by syntax, under whatever name."""

from __future__ import annotations

import ast
from collections.abc import Iterator

MODULES = {"pickle", "_pickle", "cPickle", "pickletools", "dill", "cloudpickle", "joblib", "marshal", "shelve"} | {
    "yaml", "ruamel", "jsonpickle", "imp", "runpy", "code", "codeop", "torch.utils.model_zoo", "numpy.lib.npyio",
}  # fmt: skip
BUILTINS = {"eval", "exec", "compile", "__import__"}
OF_MODULES = {
    "builtins": BUILTINS,
    "torch": {"load", "save", "hub", "package", "serialization", "jit.load", "export.load", "distributed.checkpoint"},
    "numpy": {"load", "save", "savez", "memmap", "lib.format.read_array"},
    "pandas": {"read_pickle"},
    "os": {"system", "popen"},
    "subprocess": {"getoutput", "getstatusoutput"},
    "importlib": {"util.spec_from_file_location", "machinery"},
    "shutil": {"unpack_archive"},
    "pooch": {"Untar", "Unzip", "Decompress"},
}
NAMES = {f"{module}.{name}" for module, names in OF_MODULES.items() for name in names} | BUILTINS
NAMES |= {"__builtins__", "globals", "locals"}
METHODS = {"read_pickle", "load_from_checkpoint", "load_state_dict_from_url", "extractall", "unpack_archive"} | {
    "exec_module", "load_module", "find_class", "to_pickle",
}  # fmt: skip  # of whatever object
HIDDEN = METHODS | {"eval", "exec", "load", "loads", "system", "popen", "__import__", "__globals__", "__subclasses__"}


def unsafe(source: str) -> list[str]:
    """What the source does that could run code from a file, each as `line: what`; empty if there is nothing."""
    tree = ast.parse(source)
    names = _imported(tree)
    found = [f"{node.lineno}: {what}" for node in ast.walk(tree) for what in _faults(node, names)]
    return sorted(set(found), key=lambda line: int(line.partition(":")[0]))


def _imported(tree: ast.Module) -> dict[str, str]:
    """What each name that an import binds stands for, in full."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _in_full(node: ast.expr, names: dict[str, str]) -> str:
    """`np.load` as `numpy.load`; nothing for what is no dotted name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (before := _in_full(node.value, names)):
        return f"{before}.{node.attr}"
    return ""


def _within(name: str, forbidden: set[str]) -> bool:
    """Whether a dotted name, or a beginning of it, is forbidden."""
    parts = name.split(".")
    return any(".".join(parts[:end]) in forbidden for end in range(1, len(parts) + 1))


def _faults(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        module = getattr(node, "module", None)
        for alias in node.names:
            name = f"{module}.{alias.name}" if module else alias.name
            if _within(name, MODULES | NAMES) or (alias.name == "*" and module in {"torch", "numpy", "builtins", "os"}):
                yield f"imports {name}"
    elif isinstance(node, ast.Name | ast.Attribute):
        name = _in_full(node, names)
        if _within(name, NAMES) or (isinstance(node, ast.Attribute) and node.attr in METHODS):
            yield f"uses {name or node.attr}"
        if name.endswith(("fabric.load", "fabric.load_raw", "fabric.save")):
            yield f"uses {name}, which pickles"
    elif isinstance(node, ast.Call):
        yield from _faults_of_call(node, _in_full(node.func, names))


def _faults_of_call(node: ast.Call, name: str) -> Iterator[str]:
    for keyword in node.keywords:
        harmless = isinstance(keyword.value, ast.Constant) and not keyword.value.value
        if keyword.arg in {"allow_pickle", "shell", "pretrained"} and not harmless:
            yield f"calls {name} with {keyword.arg}"
    literals = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    if name in {"getattr", "operator.attrgetter", "operator.methodcaller"} and HIDDEN & {*map(str, literals)}:
        yield f"gets {literals} by {name}"
    if name in {"importlib.import_module", "importlib.reload"}:
        if len(literals) != 1:
            yield f"calls {name} with a name that is computed"
        elif _within(str(literals[0]), MODULES):
            yield f"imports {literals[0]}"
