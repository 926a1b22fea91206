"""Tables of speed and memory: steps, seconds to an accuracy, and how they grow with the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from tools.markdown import markdown, table
from tools.results import Results

THROUGHPUT = (
    *("our step", "our rate / matmul rate", "plain step, decoded an item / our step"),
    *("plain step, decoded once / our step", "data path alone / our step", "peak memory", "fast: our step"),
    *("fast: our step: data", "fast: our step: augmentation", "fast: our step: teacher", "fast: our step: forward"),
    *("fast: our step: backward", "fast: our step: optimiser", "fast: our rate / matmul rate"),
    "fast: augmentation / our step",
)
GOALS = (0.87, 0.97, 0.985)  # target accuracies on MNIST-M


def measured_cells(row: Mapping[str, Any]) -> list[str]:
    """Name, case, median, range and number of a measurement."""
    extent = f"{row['min']:.3g} to {row['max']:.3g}" if row["n"] > 1 else ""
    value = f"{row['value']:,.0f}" if row["value"] >= 1000 else f"{row['value']:.3g}"
    return [row["name"], row["case"], f"{value} {row['unit']}", extent, str(row["n"])]


@table("throughput")
def throughput_table(results: Results) -> list[str]:
    """The main rows of the benchmark; all are in the file."""
    rows = [row for name in THROUGHPUT for row in results["rows"] if row["name"] == name]
    columns = ["measured (DANN step, 64 + 64 images; `fast`: 128 + 128)", "case", "median", "range", "n"]
    return markdown(columns, map(measured_cells, rows))


@table("busy", "jobs", "peers", "photos")
def measured_table(results: Results) -> list[str]:
    """All rows of a benchmark that measures in rounds, with what is required of them."""
    lines = []
    for row in results["rows"]:
        required = requirement(row["required"], met=row["met"]) if "required" in row else ""
        lines.append([*measured_cells(row), required])
    return markdown(["measured", "case", "median", "range", "n", "required"], lines)


def requirement(required: str, *, met: bool) -> str:
    """What is required of a measurement, and whether it is met."""
    return f"{required}: {'met' if met else '**not met**'}"


@table("speed", source="headline")
def speed_table(results: Results) -> list[str]:
    """Seconds of training at the end of the first epoch that reaches each goal: median and range over the seeds."""
    curves: dict[str, list[dict[str, list[float]]]] = {}
    for row in results["rows"]:
        if "curves" in row:
            curves.setdefault(row["recipe"], []).append(row["curves"])
    lines = []
    for recipe, runs in curves.items():
        cells = [_seconds_to(goal, runs) for goal in GOALS]
        lines.append([f"`{recipe}`", *cells, f"{len(runs)}"])
    return markdown(["recipe", *(f"seconds to {100 * goal:g} %" for goal in GOALS), "n"], lines)


def _seconds_to(goal: float, runs: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """The seconds to a goal, and how many runs reach it if not all do; empty if none does."""
    epochs = (zip(run["train_seconds"], run["target_accuracy"], strict=True) for run in runs)
    firsts = (next((seconds for seconds, accuracy in run if accuracy >= goal), None) for run in epochs)
    reached = [first for first in firsts if first is not None]
    if not reached:
        return ""
    of_all = "" if len(reached) == len(runs) else f", {len(reached)} of {len(runs)} runs"
    return f"{median(reached):.0f} ({min(reached):.0f} to {max(reached):.0f}{of_all})"


@table("scaling")
def scaling_table(results: Results) -> list[str]:
    """Seconds per epoch and peak memory by the number of images."""
    lines = []
    for row in results["rows"]:
        growth = [f"{row[key]:.2f}" if key in row else "" for key in ("time_over_images", "memory_over_data")]
        lines.append([f"{row['images']:,}", f"{row['epoch_seconds']:.1f}", f"{row['peak_mib']:.0f}", *growth])
    columns = ["images", "seconds per epoch", "peak memory, MiB", "time / images", "added memory / added data"]
    return markdown(columns, lines)
