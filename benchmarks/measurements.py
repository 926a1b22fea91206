"""Values measured over rounds, their medians as rows of a results file, and a table of them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Bound = tuple[str, float]  # ">=" or "<=", and the value required


class Measurements:
    """Values by name and case: one per round, or only one."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.units: dict[str, str] = {}

    def add(self, name: str, case: str, unit: str, *values: float) -> None:
        """Append to the values of a name and case."""
        self.values[name][case] += values
        self.units[name] = unit

    def add_ratio(self, name: str, case: str, over: Sequence[float], under: Sequence[float]) -> None:
        """Add the ratios of two lists of values, round by round."""
        self.add(name, case, "x", *(one / other for one, other in zip(over, under, strict=True)))

    def rows(self, bound: Callable[[str, str], Bound | None] | None = None) -> list[dict[str, Any]]:
        """Return one row per name and case: median, minimum and maximum of its n values.

        A row for which `bound(name, case)` requires something states whether it is met.
        """
        rows: list[dict[str, Any]] = []
        for name, case, values in ((name, *item) for name, cases in self.values.items() for item in cases.items()):
            value = statistics.median(values)
            rows.append({"name": name, "case": case, "value": value, "unit": self.units[name], "n": len(values)})
            rows[-1] |= {"min": min(values), "max": max(values)}
            if required := bound and bound(name, case):
                sign, limit = required
                met = value >= limit if sign == ">=" else value <= limit
                rows[-1] |= {"required": f"{sign} {limit:g}", "met": met}
        return rows


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows, grouped by name."""
    table = Table("", "", title=title, caption="median over rounds, minimum to maximum")
    for column in ("median", "range", "unit", "required"):
        table.add_column(column, justify="left" if column == "unit" else "right")
    for before, row in zip([{"name": ""}, *rows], rows, strict=False):
        if before["name"] != row["name"]:
            table.add_section()
        name = row["name"] if before["name"] != row["name"] else ""
        extent = f"{row['min']:.4g} - {row['max']:.4g}" if row["n"] > 1 else ""
        required = f"{row['required']}: {'met' if row['met'] else 'NOT MET'}" if "required" in row else ""
        table.add_row(name, row["case"], f"{row['value']:.4g}", extent, row["unit"], required)
    console = Console()
    console.width = console.width if console.is_terminal else 130
    console.print(table)
