"""Writing reports: one HTML file for a run, a comparison or a sweep, and its figures as PNG."""

from __future__ import annotations

from pathlib import Path

from mutualign.errors import MutualignError
from mutualign.io.output import check_output, write_output
from mutualign.report.comparison_data import PAGE
from mutualign.report.comparison_page import comparison_page
from mutualign.report.page import Page
from mutualign.report.run_page import run_page
from mutualign.report.sweep_page import sweep_page
from mutualign.runs.folder import RunFolder
from mutualign.runs.status import find_runs
from mutualign.runs.sweeps.study import Study


def page_of(path: Path, link_from: Path | None = None) -> Page:
    """Make the page of a run folder, a sweep, or a folder with runs in it, to be written into the folder `link_from`.

    Raises MutualignError if it is none of them.
    """
    if (path / "config.toml").is_file():
        return run_page(RunFolder.open(path))
    if Study.is_study(path):
        return sweep_page(path)
    return comparison_page(path, link_from)


def write_report(
    path: Path, out: Path | None = None, png: Path | None = None, *, runs: bool = False, force: bool = False
) -> Path:
    """Write the report of a run or comparison to `out` (default: report.html in its folder), and figures into `png`.

    With `runs`, the complete runs of a comparison get their own pages first, which it links; those that are damaged are
    left out. An older report.html in a folder is replaced; other files only with `force`. Returns the path of the HTML
    file. Raises MutualignError if there is nothing to report, or a file exists or cannot be written.
    """
    target, force_page = (path / PAGE, True) if out is None else (out, force)
    if path.is_dir():
        check_output(target, force=force_page)  # before the work
    if runs and not (path / "config.toml").is_file():
        for place in find_runs(path):
            try:
                run = run_page(RunFolder.open(place))
            except MutualignError:
                continue  # the comparison says why it is left out
            write_output(place / PAGE, run.html().encode(), force=True)
    page = page_of(path, target.absolute().parent)
    write_output(target, page.html().encode(), force=force_page)
    if png is not None:
        for name, content in page.images():
            write_output(png / f"{name}.png", content, force=force)
    return target
