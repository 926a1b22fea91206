"""The results file of a benchmark: its rows as JSON, with the command, commit and hardware that produced them."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mutualign.runs.history import Result
from mutualign.runs.rows import write_results as write
from mutualign.training.distributed import make_fabric
from mutualign.training.hardware import describe_hardware, versions

__all__ = ["origin", "origin_of_runs", "rows_of", "software", "write"]


def origin() -> dict[str, str]:
    """Return command, commit and hardware of this process. Call it first: the checkout may change during the run."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": versions()["commit"],
        "hardware": describe_hardware(make_fabric("auto")),
    }


def software() -> dict[str, str]:
    """Return the versions of Python, of mutualign and of the libraries that affect results."""
    return {name: version for name, version in versions().items() if name != "commit"}


def origin_of_runs(results: Iterable[Result]) -> dict[str, str]:
    """Return the command of this process, and the commits and hardware of the runs that it read."""
    runs = [(result.versions["commit"], result.hardware) for result in results]
    commits, hardware = (dict.fromkeys(values) for values in zip(*runs, strict=True))
    return origin() | {"commit": ", ".join(commits), "hardware": "; ".join(hardware)}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an earlier call, for one that resumes; none if there is no such file."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return rows
