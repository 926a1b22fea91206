"""`show`, `select`, `estimate` and `report`: the commands that look at runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mutualign.cli.names import registered
from mutualign.cli.options import DataOption, EpochOption, ForceOption, RunArgument, RunsArgument, require_between
from mutualign.errors import MutualignError
from mutualign.io.plugins import mutualign_command


@dataclass(frozen=True)
class Show:
    """Print a run's verdict and result, its curves, its settings, and how it was made.

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
    """Rank runs of one task, and the epochs within each, by a score that needs no target labels.

    Example: mutualign select runs/digits/*/seed-0
    """

    runs: RunsArgument
    validator: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME",
            help=f"The score; higher is better. {', '.join(registered('validator'))}.",
            help_behavior_hint="(default: combined, by which runs select their epoch)",
        ),
    ] = None

    def main(self, console: Console) -> None:
        """Print the ranking."""
        from mutualign.cli.tables import selection_table
        from mutualign.evaluation.selection import rank
        from mutualign.evaluation.validators import DEFAULT_VALIDATOR
        from mutualign.runs.estimates import require_same_data
        from mutualign.runs.folder import RunFolder

        if not self.runs:
            raise MutualignError("name one or more run folders, such as runs/digits/*/seed-0")
        validator = self.validator or DEFAULT_VALIDATOR
        folders = {str(path): RunFolder.open(path) for path in self.runs}
        require_same_data([*folders.values()])
        choices = rank({name: folder.metrics() for name, folder in folders.items()}, validator)
        console.print(selection_table(choices, validator))


@dataclass(frozen=True)
class Estimate:
    """Estimate the target accuracy of runs of one task without target labels, or from a few labels.

    Prints a lower bound, which rarely fails, and estimates, which can be far off and are better with several seeds of a
    recipe. Neither sees errors that the classifier cannot see, such as unknown classes. A few labels do: `mutualign
    report RUN --label-these 50` writes the table to fill in, and --labels reads it.

    Examples: mutualign estimate runs/digits/*/seed-*
              mutualign estimate runs/digits/fast/seed-0 --labels labels.csv
    """

    runs: RunsArgument
    epoch: EpochOption = "selected"
    labels: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The table that --label-these wrote, with its column label filled in: an exact interval instead of estimates."""

    def main(self, console: Console) -> None:
        """Print the estimates."""
        from mutualign.cli.evidence import print_evidence, print_labelled
        from mutualign.runs.estimates import estimate_runs
        from mutualign.runs.folder import RunFolder

        if not self.runs:
            raise MutualignError("name one or more run folders, such as runs/digits/*/seed-*")
        folders = [RunFolder.open(path) for path in self.runs]
        if self.labels is not None:
            for folder in folders:
                print_labelled(console, folder, self.labels, self.epoch)
            return
        print_evidence(console, estimate_runs(folders, self.epoch))


@dataclass(frozen=True)
class Report:
    """Write a report of a run, or of all runs below a folder: one HTML file that needs no network.

    Examples: mutualign report runs/digits/fast/seed-0
              mutualign report runs/digits --with-runs
              mutualign report runs/digits/fast/seed-0 --label-these 50
    """

    path: tyro.conf.Positional[Path]
    """A run folder, or a folder above several, such as runs/digits."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The HTML file. Default: report.html in that folder."""
    png: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Also write every figure as a PNG file, for a paper, into this folder."""
    with_runs: bool = False
    """For a folder above several runs: also write the page of each run, and link it."""
    label_these: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Instead of a report, choose N target test images of a run for you to label, and write a table of them for
    `estimate --labels`. Default of --out: the folder label-these of the run."""
    data: DataOption = None
    force: ForceOption = False

    def main(self, console: Console) -> None:
        """Write it, and print where it is."""
        from mutualign.report.html import write_report

        if self.label_these is not None:
            self._write_labelling(console, self.label_these)
            return
        with console.status("drawing figures"):
            written = write_report(self.path, self.out, self.png, runs=self.with_runs, force=self.force)
        console.print(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")

    def _write_labelling(self, console: Console, wanted: int) -> None:
        from mutualign.runs.folder import RunFolder
        from mutualign.runs.labelling import write_labelling
        from mutualign.runs.next_steps import compare_command, current_verdict

        if self.png or self.with_runs:
            raise MutualignError("--label-these writes no report\n  hint:    leave out --png and --with-runs")
        require_between("--label-these", wanted, 1, 10_000)
        out = self.out or self.path / "label-these"
        run = RunFolder.open(self.path)
        written, plan = write_labelling(run, self.data, wanted, out, force=self.force)
        console.print(f"{written}: {len(plan.random)} images drawn at random, for the accuracy")
        if len(plan.differing):
            console.print(f"and {len(plan.differing)} on which this run and source only differ, for the gain over it")
        if (verdict := current_verdict(run)) and verdict.compared_with is None and verdict.kind != "baseline":
            console.print(
                "none for the gain over source only, since there is no such run; to label for it too, first run\n"
                f"  {compare_command(run)}"
            )
        command = mutualign_command("estimate", self.path, "--labels", written)
        console.print(f"fill in the column label, then: {command}")
