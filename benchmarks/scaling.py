"""Cost against the number of images: seconds of an epoch and peak memory for 1x, 2x and 4x the images, in one run.

The images of both training sets are copies of the task's, so many times over, at 1x too. Each size is trained in a
process of its own. Its peak of resident memory is taken from the moment when the copies are made and their originals
are freed, so only Linux will do. An epoch's seconds are those of its steps and their data.
"""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import resource
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report
import tyro
from rich.console import Console
from rich.table import Table

from mutualign.data.datasets import find_task
from mutualign.data.fetch.data_files import data_folder
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder

TOLERANCE = 0.10  # of the growth of the number of images


@dataclass(frozen=True)
class Settings:
    """Train one epoch on 1x, 2x and 4x the images of a task. Needs Linux, and wants an idle machine."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    task: str = "mnist-mnistm"
    """the task whose images are repeated"""
    recipe: str = "fast"
    """name of a recipe, or path of its .toml file; its first stage is trained"""
    factors: tuple[int, ...] = (1, 2, 4)
    """how many times the images are taken"""
    out: Path = Path("results/scaling.json")
    """where the numbers go"""


def measure(task_name: str, recipe_name: str, factor: int, data: Path) -> dict[str, Any]:
    """One epoch on so many times the images. To be called in a fresh process."""
    task = grown(find_task(task_name).load(data), factor)
    recipe = load_recipe(recipe_name, ["stages.0.epochs=1"])
    source, target = task.source_train, task.target_train
    tensors = (source.images.pixels, source.labels, target.images.pixels, target.hidden_labels)
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment.start(recipe, task, 0, Path(folder) / "run")
        reset_peak()
        before = peak_mib()
        experiment.run()
        (record,) = RunFolder.open(Path(folder) / "run").metrics()
    return {
        "factor": factor,
        "images": len(source) + len(target),
        "epoch_seconds": record["train_seconds"],
        "data_mib": sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20,
        "before_mib": before,
        "peak_mib": peak_mib(),
    }


def grown(task: Task, factor: int) -> Task:
    """The task with copies of its images: the training sets so many times over, the test sets once.

    The test sets are copied too because they may be views of a mapped file, which would keep all of it in memory.
    """

    def copies(images: UnlabelledImages, times: int) -> UnlabelledImages:
        return dataclasses.replace(images, pixels=images.pixels.repeat(times, 1, 1, 1))

    def labelled(images: LabelledImages, times: int) -> LabelledImages:
        return LabelledImages(copies(images.images, times), images.labels.repeat(times))

    def as_target(images: TargetDataset, times: int) -> TargetDataset:
        return TargetDataset(copies(images.images, times), images.hidden_labels.repeat(times))

    return dataclasses.replace(
        task,
        source_train=labelled(task.source_train, factor),
        source_test=labelled(task.source_test, 1),
        target_train=as_target(task.target_train, factor),
        target_test=as_target(task.target_test, 1),
    )


def reset_peak() -> None:
    """Let the peak of `peak_mib` begin anew, at what the process holds now. Linux only (man 5 proc, clear_refs)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The most memory, in MiB, that this process has held, since its start or the last `reset_peak`."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would count the memory of the process that started this one
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with their growth over the first one; both are 1 where the cost is linear.

    `time_over_images`: by which factor the time grew, over the factor of the images. `memory_over_data`: by how many
    MiB the peak grew, over the MiB of the training images and labels that were added. What every size needs alike
    (interpreter, libraries, weights, activations, test images) cancels out.
    """
    first, result = rows[0], []
    for row in rows:
        growth = {}
        if row is not first:
            images = row["images"] / first["images"]
            growth["time_over_images"] = row["epoch_seconds"] / first["epoch_seconds"] / images
            data = row["data_mib"] - first["data_mib"]
            growth["memory_over_data"] = (row["peak_mib"] - first["peak_mib"]) / data
            growth["met"] = all(abs(value - 1) <= TOLERANCE for value in growth.values())
        result.append(row | growth)
    return result


def main() -> None:
    """Measure, print a table, write the JSON."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit("benchmarks/scaling.py: needs Linux: elsewhere the peak of memory cannot be reset")
    origin, rows = report.origin(), []
    try:
        data = data_folder(settings.data)
        find_task(settings.task).load(data)  # builds what is cached, so that every size begins alike
        for factor in settings.factors:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                rows.append(process.submit(measure, settings.task, settings.recipe, factor, data).result())
    except MutualignError as error:
        raise SystemExit(f"benchmarks/scaling.py: {error}") from None
    rows = compared(rows)
    shown = Table("images", "seconds an epoch", "peak MiB", "time / images", "added memory / added data")
    for row in rows:
        growth = [f"{row[key]:.2f}" if key in row else "" for key in ("time_over_images", "memory_over_data")]
        shown.add_row(f"{row['images']}", f"{row['epoch_seconds']:.1f}", f"{row['peak_mib']:.0f}", *growth)
    Console().print(shown)
    report.write(settings.out, origin, rows)


if __name__ == "__main__":
    main()
