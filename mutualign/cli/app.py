"""The `mutualign` command: parse, import the command's module, call it, print errors without a traceback."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Union

import tyro

import mutualign
from mutualign.cli.console import PlainConsole, printable
from mutualign.cli.help import tidied, wrapped
from mutualign.errors import OUT_OF_MEMORY, MutualignError, is_out_of_memory, nearest
from mutualign.io.plugins import load_plugin

DESCRIPTION = """Adapt an image classifier to images without labels, and see whether it helped.

The source is labelled images of one kind; the target is unlabelled images of another. A task names both, a recipe says
how to train, and a run is a folder with the classifier and its results.

Examples: mutualign compare --task digits --seeds 1
          mutualign run --source photos/labelled --target photos/unlabelled
          mutualign report runs/labelled-to-unlabelled/photos/seed-0

mutualign COMMAND --help explains a command. --plugin MODULE, with any command, first imports a module of yours that
registers methods, backbones or datasets: its name, or the path of its .py file. --version prints the version.
--tyro-print-completion {bash,zsh,tcsh} prints a script for completion.
"""
START = f"""mutualign {mutualign.__version__}: adapts an image classifier to images without labels.
  try it           mutualign compare --task digits --seeds 1
  your own images  mutualign run --source photos/labelled --target photos/unlabelled
  all commands     mutualign --help
"""
# Modules that import torch only when the command runs, so that help and completion are quick.
COMMANDS = {
    "run": "train:Run",
    "compare": "compare:Compare",
    "select": "inspect:Select",
    "estimate": "inspect:Estimate",
    "report": "inspect:Report",
    "predict": "predict:Predict",
    "sweep": "sweep:SweepCommand",
    "runs": "runs:Runs",
    "show": "inspect:Show",
    "export": "export:Export",
    "demo": "demo:Demo",
    "data": "data:Data",
    "methods": "methods:Methods",
}


def main() -> None:
    """Entry point of the `mutualign` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what an encoding lacks is escaped, not an error
            stream.reconfigure(errors="backslashreplace")
    try:
        _run(sys.argv[1:])
        sys.stdout.flush()
    except MutualignError as error:
        _fail(str(error))
    except BrokenPipeError:  # whoever read the output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
        raise SystemExit(128 + 13) from None  # as if SIGPIPE, which Windows lacks, had ended it
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _fail(OUT_OF_MEMORY)


def _run(arguments: Sequence[str]) -> None:
    plugins, arguments = take_plugins(arguments)
    if not arguments:
        print(START, end="")
        return
    if arguments[0] == "--version":
        print(f"mutualign {mutualign.__version__}")
        return
    command = parse(arguments)
    for plugin in plugins:
        load_plugin(plugin)
    command.main(PlainConsole())


def take_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split `--plugin NAME` and `--plugin=NAME`, wherever they stand, from the other arguments."""
    plugins, others, rest = [], [], iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option != "--plugin":
            others.append(argument)
            continue
        name = value if equals else next(rest, "")
        if not name or name.startswith("-"):
            raise MutualignError("--plugin needs the name of a module, or the path of its .py file")
        plugins.append(name)
    return plugins, others


def parse(arguments: Sequence[str]) -> Any:
    """Return the command that the arguments describe. Prints help or usage errors, and exits."""
    name, *rest = arguments
    if name in COMMANDS:
        command = _command(name)
        return _cli(command, f"mutualign {name}", inspect.cleandoc(command.__doc__ or ""), rest)
    if not name.startswith("-"):
        raise MutualignError(f'unknown command "{name}"; {nearest(name, COMMANDS)}')
    every: Any = Union[tuple(_listed(name) for name in COMMANDS)]  # noqa: UP007 - made while it runs
    return _cli(every, "mutualign", DESCRIPTION, arguments)


def _cli(command: Any, program: str, description: str, arguments: Sequence[str]) -> Any:
    """Parse with tyro; the description of the help is ours, which fits the terminal."""
    if {"-h", "--help"} & {*arguments}:
        print(f"{wrapped(description)}\n")
    return tyro.cli(command, prog=program, description="", args=arguments)


def _listed(name: str) -> Any:
    """A command with the first sentence of its help, for the list of all."""
    command = _command(name)
    first, *_ = (command.__doc__ or "").split("\n\n")
    return Annotated[command, tyro.conf.subcommand(name, description=" ".join(first.split()), prefix_name=False)]


def _command(name: str) -> Any:
    module, _, attribute = COMMANDS[name].partition(":")
    return tidied(getattr(import_module(f"mutualign.cli.{module}"), attribute))


def _fail(message: str) -> None:
    print(f"mutualign: {printable(message)}", file=sys.stderr)
    raise SystemExit(2) from None
