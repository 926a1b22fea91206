"""Cost against the number of images: seconds of an epoch and peak memory for 1x, 2x and 4x the images, in one run.

The images of both training sets are the task's, repeated. Each size is trained in a process of its own, whose peak
memory is taken; an epoch's seconds are those of its steps and their data.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import multiprocessing
import resource
import shlex
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from mutualign.data.download import data_folder
from mutualign.data.images import LabelledImages, SealedImages, UnlabelledImages
from mutualign.data.tasks import find_task
from mutualign.errors import MutualignError
from mutualign.experiment import Experiment
from mutualign.recipes import load_recipe
from mutualign.training.environment import describe_hardware, make_fabric, versions
from mutualign.training.runs import RunFolder, write_atomically

TOLERANCE = 0.10  # of the growth of the number of images


@dataclass(frozen=True)
class Settings:
    """Train one epoch on 1x, 2x and 4x the images of a task. Wants an idle machine."""

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
    task, recipe = find_task(task_name).load(data), load_recipe(recipe_name, ["stages.0.epochs=1"])
    source, target = task.source_train, task.target_train

    def repeated(images: UnlabelledImages) -> UnlabelledImages:
        return images if factor == 1 else UnlabelledImages(images.pixels.repeat(factor, 1, 1, 1))

    larger = dataclasses.replace(
        task,
        source_train=LabelledImages(repeated(source.images), source.labels.repeat(factor)),
        target_train=SealedImages(repeated(target.images), target.sealed_labels.repeat(factor)),
    )
    del task, source, target
    tensors = (larger.source_train.images.pixels, larger.target_train.images.pixels)
    with tempfile.TemporaryDirectory() as folder:
        Experiment.start(recipe, larger, 0, Path(folder) / "run").run()
        (record,) = RunFolder.open(Path(folder) / "run").metrics()
    return {
        "factor": factor,
        "images": len(larger.source_train) + len(larger.target_train),
        "epoch_seconds": record["train_seconds"],
        "data_mib": sum(tensor.numel() for tensor in tensors) / 2**20,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float:
    """The most memory, in MiB, that this process has held."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would count the memory of the process that started this one
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with their growth over the first one: time over images, and memory over data (1 is linear)."""
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
    rows = []
    try:
        data = data_folder(settings.data)
        find_task(settings.task).load(data)  # builds what is cached, which would count as memory of the first size
        for factor in settings.factors:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                rows.append(process.submit(measure, settings.task, settings.recipe, factor, data).result())
    except MutualignError as error:
        raise SystemExit(f"benchmarks/scaling.py: {error}") from None
    rows = compared(rows)
    shown = Table("images", "seconds an epoch", "peak MiB", "time / images", "memory / data")
    for row in rows:
        growth = [f"{row[key]:.2f}" if key in row else "" for key in ("time_over_images", "memory_over_data")]
        shown.add_row(f"{row['images']}", f"{row['epoch_seconds']:.1f}", f"{row['peak_mib']:.0f}", *growth)
    Console().print(shown)
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "commit": versions()["commit"],
        "hardware": describe_hardware(make_fabric("auto")),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": rows,
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(settings.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
