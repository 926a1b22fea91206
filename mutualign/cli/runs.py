"""`runs`: the command that lists the runs below a folder, and says how to continue those that are not complete."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mutualign.errors import MutualignError
from mutualign.io.plugins import resume_command


@dataclass(frozen=True)
class Runs:
    """List the runs below a folder with their states, and the command that continues each that is not complete.

    A run is complete, running, stopped, failed, or unreadable: damaged, or in need of a plugin.

    Example: mutualign runs runs/digits
    """

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="[FOLDER]")] = Path("runs")
    """A folder above several runs, or a run."""

    def main(self, console: Console) -> None:
        """Print the table and the commands. Raises MutualignError if there is no run."""
        from mutualign.cli.tables import runs_table
        from mutualign.runs.status import find_runs, status_of

        found = [status_of(path) for path in find_runs(self.folder)]
        if not found:
            raise MutualignError(f"{self.folder}: no run in it\n  hint:    name a folder that `run` or `compare` wrote")
        console.print(runs_table(found, self.folder))
        counts = Counter(one.state for one in found)
        console.print(", ".join(f"{counts[state]} {state}" for state in counts))
        resumable = [one.path for one in found if one.can_resume]
        if resumable:
            console.print("to continue:")
        for path in resumable:
            console.print(f"  {resume_command(path)}")
        if any(one.is_of_sweep and one.state == "stopped" for one in found):
            console.print("runs of a sweep: the command that started it continues all but those that it has given up")
