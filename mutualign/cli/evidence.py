"""Evidence about runs on the terminal: the bound and the estimates, result first, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from mutualign.cli.console import columns, print_wrapped
from mutualign.io.numbers import percent, points
from mutualign.runs.checkpoints import Which
from mutualign.runs.estimates import RunEstimates
from mutualign.runs.folder import RunFolder
from mutualign.runs.labelling import read_labelling
from mutualign.runs.next_steps import bound_in_words, contradiction, labels_show

MOST = 6  # runs that fit beside each other
UNSEEN = (
    "The bound assumes that the true labels are no worse than the worst labelling that a linear function of the logits "
    "can find. No evidence without labels sees classes that the source lacks, source labels that are wrong in a "
    "systematic way, or images that the network gets wrong with confidence."
)


def print_evidence(console: Console, found: Sequence[RunEstimates]) -> None:
    """Print a line per run, then the estimates in a table, and what they cannot see."""
    for run in found:
        name, best = run.best
        console.print(
            f"{run.run.path}\n"
            f"  {bound_in_words(run.bound)}\n"
            f"  about {percent(best.accuracy)} right, by {name.replace('_', ' ')}",
        )
        print_wrapped(console, contradiction(run.bound, best.accuracy, run.run, labelled=False))
    table = Table("estimator", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="estimated target accuracy in %")
    shown = found[:MOST]
    for number, _ in enumerate(shown, start=1):
        table.add_column(f"run {number}" if len(found) > 1 else "run", justify="right", no_wrap=True)
    missing = []
    for name in shown[0].estimates:
        values = ["" if (one := run.estimates[name]) is None else f"{100 * one.accuracy:.1f}" for run in shown]
        if any(values):
            table.add_row(name.replace("_", " "), *values)
        else:
            missing.append(name.replace("_", " "))
    console.print(table)
    if missing:
        line = f"need more runs (several seeds or recipes): {', '.join(missing)}"
        console.print(textwrap.fill(line, columns(console)))
    if len(found) > MOST:
        console.print(f"the table shows the first {MOST} of {len(found)} runs")
    unseen = f"{UNSEEN} {labels_show(found[0].run.config())}"
    console.print(textwrap.fill(unseen, columns(console)), style="dim")


def print_labelled(console: Console, folder: RunFolder, table: Path, which: Which) -> None:
    """Print what a few labels say about an epoch of a run."""
    found = read_labelling(table, folder, which)
    low, value, high = (percent(share) for share in (found.accuracy.low, found.accuracy.value, found.accuracy.high))
    lines = [
        str(folder.path),
        f"  {value} right, {low} to {high}",
        f"  (exact 95 % interval from {found.images} labels drawn at random)",
    ]
    if found.gain is None:
        lines.append("  no source-only run of the same network and epochs next to it: no gain")
    else:
        low, value, high = map(points, (found.gain.low, found.gain.value, found.gain.high))
        lines.append(f"  {value} points over source only, {low} to {high}")
        lines.append(f"  (95 % interval from {found.differing} labels of images on which the two runs differ)")
    console.print("\n".join(lines))
