"""A comparison of twenty runs with `--jobs 1` on all threads and with `--jobs 2` on half of them each, in turn."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import results_file
import tyro
from measurements import Bound, Measurements, print_table

from mutualign.runs.folder import RunFolder

SMALL = ("stages.0.epochs=2", "stages.0.epoch_steps=60")  # of each run
REQUIRED = {"small_resnet": 1.6, "mlp": 1.6}  # times the throughput


@dataclass(frozen=True)
class Settings:
    """Compare the wall time of a comparison run by run and side by side, start-up included. Needs an idle machine."""

    backbones: tuple[str, ...] = ("mlp", "small_resnet", "two_block_cnn")
    """networks of the runs, which train source only on `digits`"""
    runs: int = 20
    """runs of a comparison, one seed each"""
    jobs: int = 2
    """how many run side by side; the threads are shared among them"""
    rounds: int = 1
    """how many times everything is measured"""
    out: Path = Path("results/jobs.json")
    """where the numbers are written"""


def seconds_of(backbone: str, runs: int, jobs: int) -> float:
    """Return the wall seconds of a comparison in a process of its own; all of its runs must be complete."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mutualign", "compare", "--recipes", "source_only", "--task", "digits"]
        command += ["--seeds", str(runs), "--jobs", str(jobs), "--out", folder, "--set", f"backbone={backbone}", *SMALL]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"COLUMNS": "120"})
        seconds = time.perf_counter() - start
        found = sorted(Path(folder).glob("*/*/seed-*"))
        if len([RunFolder.open(path).require_result() for path in found]) != runs:
            raise SystemExit(f"benchmarks/jobs.py: {len(found)} runs instead of {runs}")
    return seconds


def measure(settings: Settings) -> Measurements:
    """Measure everything."""
    results = Measurements()
    for _ in range(settings.rounds):
        for backbone in settings.backbones:
            for jobs in (1, settings.jobs):
                seconds = seconds_of(backbone, settings.runs, jobs)
                results.add(f"{settings.runs} runs, --jobs {jobs}", backbone, "s", seconds)
    one, several = (results.values[f"{settings.runs} runs, --jobs {jobs}"] for jobs in (1, settings.jobs))
    for backbone in settings.backbones:
        results.add_ratio(f"throughput, --jobs {settings.jobs} / --jobs 1", backbone, one[backbone], several[backbone])
    return results


def bound(name: str, case: str) -> Bound | None:
    """Return what is required of a row."""
    return (">=", REQUIRED[case]) if name.startswith("throughput") and case in REQUIRED else None


def main() -> None:
    """Measure, print a table, write the JSON."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin = results_file.origin()
    rows = measure(settings).rows(bound)
    print_table(origin["hardware"], rows)
    results_file.write(settings.out, origin, rows, settings={"runs": settings.runs, "of each run": list(SMALL)})


if __name__ == "__main__":
    main()
