"""What docs/promises.md promises, and the tally of faults that tests inject to see each promise kept."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PROMISES = (
    "exact resume",
    "same seed, same run",
    "killed at any moment",
    "disk full, read-only, no permission",
    "corruption is found",
    "stopped by a signal",
    "not finite",
    "no code from files",
    "archives stay in their folder",
    "downloads are what was pinned",
    "parsers are total",
    "two processes equal one",
    "old runs stay readable",
    "a long run stays small",
)


class Tally:
    """How many faults were injected to try each promise, and how many it survived."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}

    @contextmanager
    def injected(self, promise: str, times: int = 1) -> Iterator[None]:
        """Around a fault and the assertions about what came of it: survived, if nothing is raised."""
        if promise not in PROMISES:
            raise ValueError(f"no such promise: {promise}")
        counts = self.counts.setdefault(promise, [0, 0])
        counts[0] += times
        yield
        counts[1] += times

    def add(self, counts: Mapping[str, Sequence[int]]) -> None:
        """Add what another process counted."""
        for promise, (tried, kept) in counts.items():
            own = self.counts.setdefault(promise, [0, 0])
            self.counts[promise] = [own[0] + tried, own[1] + kept]

    def rows(self) -> list[dict[str, str | int]]:
        """A row a promise, in their order; one that no test tried has zeros."""
        counts = ((promise, *self.counts.get(promise, (0, 0))) for promise in PROMISES)
        return [{"promise": promise, "injected": tried, "survived": kept} for promise, tried, kept in counts]

    def write(self, path: Path) -> None:
        """Write the results file that the README's table is made from."""
        from mutualign.training.distributed import make_fabric
        from mutualign.training.hardware import describe_hardware, versions

        content = {
            "command": shlex.join(["pytest", *sys.argv[1:]]),
            "commit": versions()["commit"],
            "hardware": describe_hardware(make_fabric("auto")),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "rows": self.rows(),
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
