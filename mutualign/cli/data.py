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
    """List the tasks, fetch the files that a task needs, or verify those that are there.

    Examples: mutualign data list
              mutualign data fetch mnist-mnistm
    """

    action: tyro.conf.Positional[Literal["list", "fetch", "verify"]]
    """list: every task and how many of its files are there. fetch: download what is missing, checked against its
    SHA-256. verify: check what is there."""
    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[TASK]")] = "all"
    """One task, or all."""
    data: DataOption = None

    def main(self, console: Console) -> None:
        from mutualign.data.datasets import TASKS, find_task
        from mutualign.data.fetch.data_files import damaged, data_folder, require

        folder = data_folder(self.data)
        names = list(TASKS) if self.task == "all" else [self.task]
        console.print(f"data folder: {folder}", highlight=False, soft_wrap=True)
        bad = []
        for name in names:
            entry = find_task(name)
            if self.action == "fetch":
                require(entry.files, name, folder)
            there = sum(file.find(folder) is not None for file in entry.files)
            line = f"  {name:<24} {there} of {len(entry.files)} files  {entry.description}"
            if self.action == "verify":
                bad += (broken := damaged(entry.files, folder))
                line = f"  {name:<24} {there} of {len(entry.files)} files, {len(broken)} damaged"
            console.print(line, highlight=False, soft_wrap=True)
        if bad:
            listed = "\n".join(f"  damaged  {path}" for path in dict.fromkeys(bad))
            raise MutualignError(f"damaged files\n{listed}\n  do       delete them and run `mutualign data fetch`")
