"""`methods`: the command that lists the methods, and explains one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from mutualign.errors import MutualignError, nearest


@dataclass(frozen=True)
class Methods:
    """List the methods of domain adaptation, or explain one: its losses, its paper, its settings.

    Examples: mutualign methods
              mutualign methods cdan
    """

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NAME]")] = None
    """A method; without one, all are listed."""

    def main(self, console: Console) -> None:
        """Print the list or the explanation. Raises MutualignError for an unknown method, naming the nearest."""
        from mutualign.methods import METHODS
        from mutualign.methods.describe import explanation, settings_of

        if self.name is None:
            for entry in METHODS.values():
                console.print(f"  {entry.name:<26} {entry.summary}")
            console.print("\nmutualign methods NAME explains one; recipes name methods in their stages")
            return
        if self.name not in METHODS:
            raise MutualignError(f'unknown method "{self.name}"; {nearest(self.name, METHODS)}')
        entry = METHODS[self.name]
        console.print(f"{entry.name}\n\n{explanation(entry)}\n")
        for name, default in settings_of(entry).items():
            console.print(f"  {name:<26} {default}")
