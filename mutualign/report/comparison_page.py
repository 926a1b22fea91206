"""The page of a comparison: all complete runs below a folder, grouped by data, from their folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mutualign.io.plugins import resume_command
from mutualign.report.comparison_data import LeftOut, RunGroup, read_runs
from mutualign.report.group_report import GroupReport
from mutualign.report.page import KeyNumber, Page, Prose, Section, Table, slug


def comparison_page(path: Path, link_from: Path | None = None) -> Page:
    """Make the report of every complete run below a folder; links start from the folder `link_from`.

    Raises MutualignError if there is no complete run.
    """
    groups, left_out = read_runs(path, link_from)
    anchors: dict[str, RunGroup] = {}
    for group in groups:
        anchor, taken = slug(group.title), len(anchors) + 2
        anchors[anchor if anchor not in {*anchors, "left-out"} else f"{anchor}-{taken}"] = group
    parts = [GroupReport(anchor, group) for anchor, group in anchors.items()]
    runs = [one.run for group in groups for one in group.runs]
    alarmed, seeds = sum(bool(run.alarms) for run in runs), {run.result.seed for run in runs}
    return Page(
        title="Comparison",
        where="/".join(path.absolute().parts[-2:]),
        summary=" ".join(part.sentence() for part in parts),
        numbers=[
            _count(len(runs), "complete run"),
            _count(len({run.result.task for run in runs}), "task"),
            _count(len(seeds), "seed"),
            _count(alarmed, "run with an alarm", "runs with an alarm"),
        ],
        sections=[*(part.section() for part in parts), *([_left_out(left_out)] if left_out else [])],
        reads_labels=any(part.has_labels for part in parts),
        badge=parts[0].badge() if len(parts) == 1 else None,
    )


def _count(n: int, one: str, several: str = "") -> KeyNumber:
    return KeyNumber(str(n), one if n == 1 else several or f"{one}s")


def _left_out(runs: Sequence[LeftOut]) -> Section:
    text = f"These folders are not part of the comparison. `{resume_command('FOLDER')}` resumes a run."
    rows = [(one.path, one.reason) for one in runs]
    return Section("left-out", "Left out", [Prose(text), Table(("folder", "reason"), rows)])
