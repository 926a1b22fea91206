"""The report: of a run folder or of a comparison's, one HTML file, and its figures as PNG."""

from __future__ import annotations

from pathlib import Path

from mutualign.errors import MutualignError
from mutualign.io.atomic import write_atomically
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


def write_report(path: Path, out: Path | None = None, png: Path | None = None) -> Path:
    """Write the report of a run or of a comparison, to `out` or into its folder, and its figures into `png`.

    Gives the path of the HTML file. Raises MutualignError where there is nothing to report or the place cannot be
    written.
    """
    out = out or path / NAME
    page = page_of(path)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page.html().encode())
        if png:
            png.mkdir(parents=True, exist_ok=True)
            for name, content in page.images():
                write_atomically(png / f"{name}.png", content)
    except OSError as error:
        raise MutualignError(
            f"cannot write {error.filename or out}: {error.strerror}; choose another place with --out or --png"
        ) from error
    return out
