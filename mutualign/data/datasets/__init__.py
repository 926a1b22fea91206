"""Tasks by name. One file per dataset in `tasks/`; importing this package registers all of them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from mutualign.data.datasets import tasks
from mutualign.data.datasets.registry import TASKS, TaskEntry, find_task, register_task

for _module in iter_modules(tasks.__path__):
    import_module(f"{tasks.__name__}.{_module.name}")

__all__ = ["TASKS", "TaskEntry", "find_task", "register_task"]
