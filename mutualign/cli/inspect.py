"""`show`, `select`, `estimate` and `report`: the commands that look at runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mutualign.cli.names import registered
from mutualign.cli.options import EpochOption, ForceOption, RunArgument, RunsArgument
from mutualign.errors import MutualignError


@dataclass(frozen=True)
class Show:
    """Print a run's config, its curves epoch by epoch, and its result.

    Example: mutualign show runs/digits/fast/seed-0
    """

    run: RunArgument

    def main(self, console: Console) -> None:
        """Print it."""
        from mutualign.cli.show import show_run
        from mutualign.runs.folder import RunFolder

        show_run(console, RunFolder.open(self.run))


@dataclass(frozen=True)
class Select:
    """Rank runs of one task, and their epochs, by a label-free score: which to keep if the target has no labels.

    Example: mutualign select runs/digits/*/seed-0
    """

    runs: RunsArgument
    validator: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME",
            help=f"The score, always higher for better: {', '.join(registered('validator'))}.",
            help_behavior_hint="(default: the one that runs select their epoch by)",
        ),
    ] = None

    def main(self, console: Console) -> None:
        """Print the ranking."""
        from mutualign.cli.tables import selection_table
        from mutualign.evaluation.selection import rank
        from mutualign.evaluation.validators import DEFAULT_VALIDATOR
        from mutualign.runs.folder import RunFolder

        if not self.runs:
            raise MutualignError("name one or more run folders, such as runs/digits/*/seed-0")
        validator = self.validator or DEFAULT_VALIDATOR
        folders = {str(path): RunFolder.open(path) for path in self.runs}
        data = dict.fromkeys(folder.config().data for folder in folders.values())
        if len(data) > 1:
            listed = "\n".join(f"  data     {identity}" for identity in data)
            raise MutualignError(f"the runs are of different data; scores compare only on the same\n{listed}")
        choices = rank({name: folder.metrics() for name, folder in folders.items()}, validator)
        console.print(selection_table(choices, validator))


@dataclass(frozen=True)
class Estimate:
    """Estimate the accuracy of runs of one task on their target test images, without looking at a target label.

    Give all seeds of a recipe, better of several recipes: the interval comes from how far independent runs agree.

    Example: mutualign estimate runs/digits/*/seed-*
    """

    runs: RunsArgument
    epoch: EpochOption = "selected"

    def main(self, console: Console) -> None:
        """Print the estimates."""
        from mutualign.cli.tables import estimates_table
        from mutualign.runs.estimates import estimate_runs
        from mutualign.runs.folder import RunFolder

        if not self.runs:
            raise MutualignError("name one or more run folders, such as runs/digits/*/seed-*")
        found = estimate_runs([RunFolder.open(path) for path in self.runs], self.epoch)
        console.print(estimates_table(found))
        if any(name != "consensus" for name, _ in (run.best for run in found)):
            console.print(
                "only a rough guess: train two seeds or more of the best recipe, and name all runs, for a reliable "
                "interval (mutualign compare --seeds 3)"
            )


@dataclass(frozen=True)
class Report:
    """Write a report of a run, or of all runs below a folder: one HTML file that needs no network.

    Example: mutualign report runs/digits/fast/seed-0
    """

    path: tyro.conf.Positional[Path]
    """A run folder, or a folder above several, such as runs/digits."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The HTML file. Default: report.html in that folder."""
    png: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Also write every figure as a PNG file, for a paper, into this folder."""
    force: ForceOption = False

    def main(self, console: Console) -> None:
        """Write it, and print where it is."""
        from mutualign.report.html import write_report

        with console.status("drawing figures"):
            written = write_report(self.path, self.out, self.png, force=self.force)
        console.print(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")
