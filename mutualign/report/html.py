"""The report: of a run folder or of a comparison's, one HTML file, and its figures as PNG."""

from __future__ import annotations

from pathlib import Path

from mutualign.io.output import check_output, write_output
from mutualign.report.comparison_page import comparison_page
from mutualign.report.page import Page
from mutualign.report.run_page import run_page
from mutualign.runs.folder import RunFolder

NAME = "report.html"


def page_of(path: Path) -> Page:
    """The page of a run folder, or of a folder above several. Raises MutualignError where it is neither."""
    if (path / "config.toml").is_file():
        return run_page(RunFolder.open(path))
    return comparison_page(path)


def write_report(path: Path, out: Path | None = None, png: Path | None = None, *, force: bool = False) -> Path:
    """Write the report of a run or of a comparison to `out`, and its figures into the folder `png`.

    By default it is report.html in the run's folder. Returns the path of the HTML file. Raises MutualignError if there
    is nothing to report, if a file exists and `force` is off, and if the place cannot be written.
    """
    out = out or path / NAME
    check_output(out, force=force)  # before the figures are drawn
    page = page_of(path)
    write_output(out, page.html().encode(), force=force)
    if png:
        for name, content in page.images():
            write_output(png / f"{name}.png", content, force=force)
    return out
