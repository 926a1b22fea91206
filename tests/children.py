"""Processes for tests, forked in a tenth of a second from one that has the package loaded and runs nothing."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["pytest", "beartype", "sklearn.ensemble", "sklearn.linear_model", "mutualign.cli.show", "mutualign.runs.jobs"]
)


def start(target: Any, *arguments: object) -> BaseProcess:
    """A process that calls a function of a module."""
    child = CONTEXT.Process(target=target, args=arguments)
    child.start()
    return child


def finish(child: BaseProcess, seconds: float = 60) -> int:
    """The exit status of a child that ends by itself."""
    child.join(seconds)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode


def start_command(arguments: Sequence[str], folder: Path, log: Path) -> BaseProcess:
    """Start `mutualign` in a folder, with this process's environment, one thread, and a session of its own.

    What it prints is added to `log`.
    """
    return start(_command, arguments, folder, log, dict(os.environ))


def _command(arguments: Sequence[str], folder: Path, log: Path, environment: dict[str, str]) -> None:
    import torch

    from mutualign.cli import app

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(number, stream.fileno())
    torch.set_num_threads(1)
    sys.argv = [str(Path(app.__file__).parents[1] / "__main__.py"), *arguments]  # what it starts others with
    try:
        app.main()
    finally:
        atexit._run_exitfuncs()  # as in a process that was not forked
