"""A training step on an idle machine and on a busy one, by how OpenMP's threads wait for work.

Each setting has its own process, since OpenMP reads it once. In every round each process trains for a while alone, then
while a busy loop runs for every core; ratios are taken within a round.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import results_file
import tyro
from measurements import Bound, Measurements, print_table
from throughput import OurStep

from mutualign.data.datasets import find_task
from mutualign.data.fetch.data_files import data_folder
from mutualign.training.hardware import keep_freed_memory

OURS, DEFAULT = "mutualign", "OpenMP's default"
SETTINGS = {  # environment variables of each process
    OURS: {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "20000")},  # `import mutualign` has set it
    DEFAULT: {"GOMP_SPINCOUNT": "300000"},
    "no spinning": {"GOMP_SPINCOUNT": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
REQUIRED = {("idle step / idle step by default", OURS): 1.03, ("busy step / idle step", OURS): 3.0}


@dataclass(frozen=True)
class Settings:
    """Measure training steps without and with busy loops. Needs a machine that is idle but for this; Linux, CPU."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    task: str = "digits"
    """the task to train on; `digits` needs no files"""
    recipe: str = "dann"
    """the recipe whose first stage is trained"""
    precision: str = "auto"
    """precision of the steps"""
    spins: tuple[int, ...] = ()
    """further values of GOMP_SPINCOUNT to measure"""
    loops: int = len(os.sched_getaffinity(0))
    """busy loops"""
    rounds: int = 5
    """how many times everything is measured"""
    idle_seconds: float = 0.7
    """how long each process trains in a round without busy loops"""
    busy_seconds: float = 1.5
    """how long each process trains in a round with busy loops"""
    out: Path = Path("results/busy.json")
    """where the numbers are written"""


_step: list[OurStep] = []  # of this process


def start(data: Path, task: str, recipe: str, precision: str) -> None:
    """Build the training step of this process and warm it up; a process pool calls this first."""
    keep_freed_memory()  # as every run does
    _step.append(OurStep(find_task(task).load(data), precision, recipe))
    for _ in range(3):
        _step[0].trainer.step()


def step_seconds(least: float) -> float:
    """Return the mean seconds of the training steps of `least` seconds, of three steps at least."""
    begin, steps = time.perf_counter(), 0
    while steps < 3 or time.perf_counter() - begin < least:
        _step[0].trainer.step()
        steps += 1
    return (time.perf_counter() - begin) / steps


def process_with(environment: dict[str, str], *arguments: object) -> ProcessPoolExecutor:
    """Start a process with environment variables in place of OpenMP's, and build its training step."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("OMP_", "GOMP_"))]:
        del os.environ[name]
    os.environ |= environment
    try:
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start, arguments)
        pool.submit(step_seconds, 0.0).result()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return pool


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Context in which a number of processes do nothing but take time."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.2)  # until all of them run
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(settings: Settings) -> Measurements:
    """Measure everything."""
    results, data = Measurements(), data_folder(settings.data)
    environments = SETTINGS | {f"{count} spins": {"GOMP_SPINCOUNT": str(count)} for count in settings.spins}
    with ExitStack() as stack:
        arguments = data, settings.task, settings.recipe, settings.precision
        processes = {
            name: stack.enter_context(process_with(environment, *arguments))
            for name, environment in environments.items()
        }
        for _ in range(settings.rounds):
            for name, process in processes.items():
                idle = process.submit(step_seconds, settings.idle_seconds).result()
                results.add("idle step", name, "ms", 1e3 * idle)
            for name, process in processes.items():
                with busy_loops(settings.loops):
                    busy = process.submit(step_seconds, settings.busy_seconds).result()
                results.add("busy step", name, "ms", 1e3 * busy)
    idle, busy = results.values["idle step"], results.values["busy step"]
    for name in environments:
        results.add_ratio("idle step / idle step by default", name, idle[name], idle[DEFAULT])
    for name in environments:
        results.add_ratio("busy step / idle step", name, busy[name], idle[name])
    return results


def bound(name: str, case: str) -> Bound | None:
    """Return what is required of a row."""
    return ("<=", REQUIRED[name, case]) if (name, case) in REQUIRED else None


def main() -> None:
    """Measure, print a table, write the JSON."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin = results_file.origin()
    rows = measure(settings).rows(bound)
    print_table(origin["hardware"], rows)
    used = {key: getattr(settings, key) for key in ("task", "recipe", "precision", "loops", "rounds")}
    used |= {"spins": SETTINGS[OURS]["GOMP_SPINCOUNT"]}
    results_file.write(settings.out, origin, rows, versions=results_file.software(), settings=used)


if __name__ == "__main__":
    main()
