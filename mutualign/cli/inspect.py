"""`show`, `select`, `estimate` and `report`: the commands that look at finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from mutualign.cli.terminal import estimates_table, selection_table, show_run
from mutualign.errors import MutualignError
from mutualign.evaluation.selection import rank
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.runs.estimates import estimate_runs
from mutualign.runs.folder import RunFolder


@dataclass(frozen=True)
class Show:
    """Print a run's config, its curves epoch by epoch, and its result.

    Example: mutualign show runs/digits/fast/seed-0
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run folder, such as runs/digits/mani/seed-0."""

    def main(self, console: Console) -> None:
        show_run(console, RunFolder.open(self.run))


@dataclass(frozen=True)
class Select:
    """Rank runs of one task, and their epochs, by a label-free score: which to keep when there are no target labels.

    Example: mutualign select runs/digits/*/seed-0
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Run folders, complete or not."""
    validator: str = DEFAULT_VALIDATOR
    """The score, always higher for better: combined, information_maximisation, target_entropy, nuclear_norm,
    soft_neighbourhood_density, class_ami, mano, deep_embedded_validation, source_accuracy, coverage,
    augmentation_consistency."""

    def main(self, console: Console) -> None:
        if not self.runs:
            raise MutualignError("name one or more run folders, such as runs/digits/*/seed-0")
        folders = {str(path): RunFolder.open(path) for path in self.runs}
        tasks = dict.fromkeys(folder.config()["data"] for folder in folders.values())
        if len(tasks) > 1:
            listed = "\n".join(f"  data     {identity}" for identity in tasks)
            raise MutualignError(f"the runs are of different data; scores compare only on the same\n{listed}")
        choices = rank({name: folder.metrics() for name, folder in folders.items()}, self.validator)
        console.print(selection_table(choices, self.validator))


@dataclass(frozen=True)
class Estimate:
    """Estimate what runs of one task reach on its target test images, without looking at a target label.

    Give all seeds of a recipe, better of several recipes: the interval comes from how far independent runs agree.

    Example: mutualign estimate runs/digits/*/seed-*
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Complete run folders."""
    epoch: Literal["selected", "last"] = "selected"
    """The epoch that was selected without labels, or the last one."""

    def main(self, console: Console) -> None:
        if not self.runs:
            raise MutualignError("name one or more run folders, such as runs/digits/*/seed-*")
        found = estimate_runs([RunFolder.open(path) for path in self.runs], self.epoch)
        console.print(estimates_table(found))
        if any(name != "consensus" for name, _ in (run.best for run in found)):
            console.print(
                "only a rough guess: train two seeds or more of the best recipe, and name all runs, for an interval to "
                "trust (mutualign compare --seeds 3)"
            )


@dataclass(frozen=True)
class Report:
    """Write a report of a run, or of all runs below a folder: one HTML file that needs no network.

    Example: mutualign report runs/digits/fast/seed-0
    """

    path: tyro.conf.Positional[Path]
    """A run folder, or a folder above several, such as runs/digits."""
    out: Path | None = None
    """The HTML file. Default: report.html in that folder."""
    png: Path | None = None
    """Also write every figure as a PNG file, for a paper, into this folder."""

    def main(self, console: Console) -> None:
        from mutualign.report.html import write_report  # matplotlib takes a second to import

        with console.status("drawing figures"):
            written = write_report(self.path, self.out, self.png)
        console.print(f"{written} ({written.stat().st_size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
