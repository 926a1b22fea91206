"""Plugins: modules of users that register methods, backbones, validators or datasets when they are imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from mutualign.errors import MutualignError, shell_command

_loaded: list[str] = []


def load_plugin(name: str) -> None:
    """Import a module by its name, `package.module`, or by the path of its file, `folder/module.py`.

    Modules in the current folder are found too. Raises MutualignError if it cannot be imported.
    """
    if name in _loaded:
        return
    try:
        if name.endswith(".py"):
            path = Path(name).absolute()
            module = _import_from(path.parent, path.stem)
            if Path(str(module.__file__)).resolve() != path.resolve():
                raise ImportError(f"{module.__file__} has the same name")
        else:
            _import_from(Path.cwd(), name)
    except Exception as error:  # whatever the user's module raises
        raise MutualignError(
            f"plugin {name}: cannot be imported: {type(error).__name__}: {error}\n"
            "  hint:    give a module that Python finds, package.module, or the path of its .py file"
        ) from error
    _loaded.append(name)


def loaded_plugins() -> list[str]:
    """Return the names of the imported plugins, in order, for the config of a run."""
    return list(_loaded)


def mutualign_command(*words: object) -> str:
    """Return a command for users to paste, with the plugins that this process was started with.

    Without them, a command on a run that needs one is refused.
    """
    options = [word for name in _loaded for word in ("--plugin", name)]
    return shell_command("mutualign", *words, *options)


def resume_command(run: Path | str, *options: object) -> str:
    """Return the command that resumes a run, as `mutualign_command` does."""
    return mutualign_command("run", "--resume", run, *options)


def require_plugins(names: Iterable[str], where: str) -> None:
    """Raise MutualignError unless the plugins that a run was trained with are imported.

    They are not imported from here: a run folder may come from anyone, and reading it must not run code.
    """
    if missing := [name for name in names if name not in _loaded and module_name(name) not in sys.modules]:
        options = [word for name in missing for word in ("--plugin", name)]
        raise MutualignError(
            f"{where}: the run needs the plugin {', '.join(missing)}\n"
            f"  hint:    if you trust it, add {shell_command(*options)} to the command"
        )


def module_name(plugin: str) -> str:
    """Return the name that a plugin's module has in `sys.modules`."""
    return Path(plugin).stem if plugin.endswith(".py") else plugin


def _import_from(folder: Path, name: str) -> ModuleType:
    """Import a module that Python finds, or that is in a folder."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return importlib.import_module(name)
