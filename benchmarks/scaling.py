"""Cost by the number of images: seconds per epoch and peak memory for 1x, 2x and 4x the images of a task.

Every size trains on copies of the task's images, 1x too, in its own process. The peak of resident memory counts from
the moment when the copies are made and the originals are freed; this needs Linux. The seconds of an epoch are those of
its steps and their data.
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

import results_file
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
    """Train one epoch on 1x, 2x and 4x the images of a task. Needs Linux and an idle machine."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    task: str = "mnist-mnistm"
    """the task whose images are repeated"""
    recipe: str = "fast"
    """a recipe of one stage: its name, or the path of its .toml file"""
    factors: tuple[int, ...] = (1, 2, 4)
    """how many copies of the images to train on"""
    out: Path = Path("results/scaling.json")
    """where the numbers are written"""


def measure(task_name: str, recipe_name: str, factor: int, data: Path) -> dict[str, Any]:
    """Train one epoch on `factor` copies of the images. Call it in a fresh process."""
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
        "epoch_seconds": record.train_seconds,
        "data_mib": sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20,
        "before_mib": before,
        "peak_mib": peak_mib(),
    }


def grown(task: Task, factor: int) -> Task:
    """Return the task with `factor` copies of its training images, and one of its test images.

    The test images are copied too, because they may be views of a mapped file, which would stay in memory.
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
    """Reset the peak of `peak_mib` to what the process holds now. Linux only (man 5 proc, clear_refs)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Return the peak memory of this process in MiB, since its start or the last `reset_peak`."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would count the memory of the process that started this one
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each row its growth over the first one; linear cost gives 1.

    time_over_images   growth of the time, over the growth of the number of images
    memory_over_data   MiB added to the peak, over the MiB of training images and labels added; the constant part
                       (interpreter, libraries, weights, activations, test images) cancels out
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
        raise SystemExit("benchmarks/scaling.py: needs Linux to reset the peak of memory")
    origin, rows = results_file.origin(), []
    try:
        data = data_folder(settings.data)
        find_task(settings.task).load(data)  # builds what is cached, so that every size starts with the same cache
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
    results_file.write(settings.out, origin, rows)


if __name__ == "__main__":
    main()
