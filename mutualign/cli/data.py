"""`data`: the command that lists tasks, and fetches and verifies their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from rich.console import Console

from mutualign.cli.options import DataOption
from mutualign.errors import MutualignError


@dataclass(frozen=True)
class Data:
    """List the tasks, download the files that a task needs, or verify those that are there.

    Examples: mutualign data list
              mutualign data fetch mnist-mnistm
    """

    action: tyro.conf.Positional[Literal["list", "fetch", "verify"]]
    """list: all tasks, and how many of their files are there. fetch: download missing files and check their SHA-256.
    verify: check the files that are there."""
    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[TASK]")] = "all"
    """One task, or all."""
    data: DataOption = None

    def main(self, console: Console) -> None:
        """List, fetch or verify. Raises MutualignError if files cannot be had, or are damaged."""
        from mutualign.data.datasets import TASKS, find_task
        from mutualign.data.fetch.data_files import damaged, data_folder, fetch_command, require

        folder = data_folder(self.data)
        names = list(TASKS) if self.task == "all" else [self.task]
        entries = [find_task(name) for name in names]
        console.print(f"data folder: {folder}")
        bad = []
        for entry in entries:
            if self.action == "fetch":
                require(entry.files, entry.name, folder)
            found, needed = entry.count_files(folder)
            line = f"  {entry.name:<24} {found} of {needed} files  {entry.description}"
            if self.action == "verify":
                bad += (broken := damaged(entry.files, folder))
                line = f"  {entry.name:<24} {found} of {needed} files, {len(broken)} damaged"
            console.print(line)
        if bad:
            listed = "\n".join(f"  damaged  {path}" for path in dict.fromkeys(bad))
            command = fetch_command(self.task, folder)
            raise MutualignError(f"damaged files\n{listed}\n  hint:    delete them and run `{command}`")
