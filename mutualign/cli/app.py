"""The command line: parse, call, print."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import tyro
from rich.console import Console

from mutualign.cli.data import Data
from mutualign.cli.demo import Demo
from mutualign.cli.export import Export
from mutualign.cli.inspect import Estimate, Report, Select, Show
from mutualign.cli.predict import Predict
from mutualign.cli.train import Compare, Run
from mutualign.errors import MutualignError

DESCRIPTION = """Adapt an image classifier to images without labels, and see whether it helped.

Begin with: mutualign compare --task digits --seeds 1
"""


def main() -> None:
    """Entry point of the `mutualign` command."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    commands: dict[str, Callable[..., Any]] = {
        "run": Run,
        "compare": Compare,
        "select": Select,
        "estimate": Estimate,
        "report": Report,
        "predict": Predict,
        "show": Show,
        "export": Export,
        "demo": Demo,
        "data": Data,
    }
    try:
        command = tyro.extras.subcommand_cli_from_dict(commands, prog="mutualign", description=DESCRIPTION)
        command.main(Console())
    except MutualignError as error:
        print(f"mutualign: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # whoever read the output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
        raise SystemExit(128 + signal.SIGPIPE) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
