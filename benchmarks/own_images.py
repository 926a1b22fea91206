"""Images from folders: loading time, prediction time and accuracy on MNIST -> MNIST-M as PNG files, and on shapes.

Only `FolderTask` reads the files. Those of MNIST hold the bytes of the task mnist-mnistm, so a recipe should reach the
same accuracy. Finished runs are not trained again, so that times can be measured on an idle machine.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import results_file
import torch
import tyro
from PIL import Image
from rich.console import Console
from shapes import SHAPES, SHAPES_ARE, in_two_colours, over_photos

from mutualign.data.datasets import find_task
from mutualign.data.datasets.bsds500 import Photos, load_bsds500
from mutualign.data.fetch.data_files import data_folder
from mutualign.data.folders.folder_task import FolderTask
from mutualign.errors import MutualignError
from mutualign.evaluation.records import EpochRecord
from mutualign.io.numbers import percent
from mutualign.recipes import load_recipe
from mutualign.runs.comparison import Comparison
from mutualign.runs.observer import Observer
from mutualign.runs.predictor import Predictor
from mutualign.runs.rows import Row
from mutualign.runs.statistics import summarise
from mutualign.training.hardware import keep_freed_memory

SMALL_RESNET = ("backbone=small_resnet",)


@dataclass(frozen=True)
class Settings:
    """Write images as PNG folders, time how they load, train on them. About half an hour on two cores."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    folder: Path = Path("runs/own-images")
    """folder of images and runs; existing ones are kept"""
    mnist: str = "fast"
    """recipes for MNIST -> MNIST-M, separated by commas; mani takes an hour per seed"""
    shapes: str = "benchmarks/source-only-fast.toml,fast"
    """recipes for the shapes, trained with the backbone small_resnet"""
    seeds: int = 3
    """how many seeds: 0, 1, 2, ..."""
    set: tuple[str, ...] = ()
    """change fields of every recipe, as `mutualign run --set` does"""
    limit: int | None = None
    """use only this many images of each part, for a trial"""
    out: Path = Path("results/own-images.json")
    """where the numbers are written"""


# The files ------------------------------------------------------------------------------------------------------------


def write_folder(folder: Path, pixels: torch.Tensor, labels: torch.Tensor | None, names: tuple[str, ...]) -> None:
    """Write uint8 images [n, height, width, 1 or 3] as FOLDER/NUMBER.png, or with labels as FOLDER/CLASS/NUMBER.png."""
    for name in names if labels is not None else ("",):
        (folder / name).mkdir(parents=True, exist_ok=True)

    def write(row: int) -> None:
        place = folder / (names[labels[row]] if labels is not None else "") / f"{row:05}.png"
        Image.fromarray(pixels[row].squeeze(-1).numpy()).save(place, compress_level=1)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(write, range(len(pixels))):
            pass


def once(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder unless it exists; after an interruption it is written again from the start."""
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        write(part)
        part.rename(folder)


def write_mnist(root: Path, data: Path, limit: int | None) -> FolderTask:
    """Write the images of the task mnist-mnistm: class folders, and one folder of target training images."""
    task = find_task("mnist-mnistm").load(data)
    digits = {
        "mnist": (task.source_train.images, task.source_train.labels),
        "mnist-test": (task.source_test.images, task.source_test.labels),
        "mnistm": (task.target_train.images, None),
        "mnistm-test": (task.target_test.images, task.target_test.hidden_labels),
    }
    for name, (images, labels) in digits.items():
        chosen = None if labels is None else labels[:limit]
        once(
            root / name, lambda folder, p=images.pixels[:limit], y=chosen: write_folder(folder, p, y, task.class_names)
        )
    return FolderTask(root / "mnist", root / "mnistm", root / "mnist-test", root / "mnistm-test")


def write_shapes(root: Path, data: Path, limit: int | None) -> FolderTask:
    """Write the shapes (`SHAPES_ARE`) as files."""
    sizes = {"shapes": 8000, "shapes-test": 2000, "shapes-photo": 8000, "shapes-photo-test": 2000}
    for number, name in enumerate(sizes):
        photos = load_bsds500(["test" if name.endswith("test") else "train"], "shapes", data)

        def write(folder: Path, number: int = number, name: str = name, photos: Photos = photos) -> None:
            rows = range(min(sizes[name], limit or sizes[name]))
            labels = torch.tensor([row % len(SHAPES) for row in rows])
            draw = over_photos(photos) if "photo" in name else in_two_colours
            drawn = [draw(SHAPES[row % len(SHAPES)], np.random.default_rng([number, row])) for row in rows]
            write_folder(folder, torch.stack(drawn), None if name == "shapes-photo" else labels, SHAPES)

        once(root / name, write)
    return FolderTask(root / "shapes", root / "shapes-photo", root / "shapes-test", root / "shapes-photo-test")


# What is measured -----------------------------------------------------------------------------------------------------


def load_times(images: FolderTask) -> list[dict[str, Any]]:
    """Time loading with an empty cache, where every file is decoded, and again with the cache."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = cache
        try:
            for name in ("read and decode", "read, decoded before"):
                start = time.perf_counter()
                task = images.load()
                seconds = time.perf_counter() - start
                parts = (task.source_train, task.source_test, task.target_train, task.target_test)
                rows.append(timed(f"{images.name}: {name}", sum(map(len, parts)), seconds))
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before
    return rows


def predict_time(run: Path, images: FolderTask) -> dict[str, Any]:
    """Time the probabilities of all target images from memory, set up as in `mutualign predict`; best of five."""
    keep_freed_memory()
    predictor, pixels = Predictor.load(run), images.load().target_train.images.pixels
    predictor.probabilities(pixels[:2000])
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        predictor.probabilities(pixels)
        seconds.append(time.perf_counter() - start)
    about = f"{images.name}: predict with {predictor.result.recipe}, decoded before"
    return timed(about, len(pixels), min(seconds))


def timed(name: str, images: int, seconds: float) -> dict[str, Any]:
    return {"name": name, "images": images, "seconds": round(seconds, 2), "images_per_second": round(images / seconds)}


class EpochLines(Observer):
    """Prints a line per epoch."""

    def epoch(self, record: EpochRecord) -> None:
        print(f"{record.method}, epoch {record.epoch}: target {percent(record.target_accuracy)}", flush=True)


def main() -> None:
    """Write, time, train, write the JSON."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin, console = results_file.origin(), Console()
    folder, data = settings.folder, data_folder(settings.data)
    rows: list[Row] = []
    try:
        jobs = (
            (write_mnist(folder, data, settings.limit), settings.mnist, ()),
            (write_shapes(folder, data, settings.limit), settings.shapes, SMALL_RESNET),
        )
        timings = [row for images, *_ in jobs for row in load_times(images)]
        for images, names, overrides in jobs:
            recipes = tuple(load_recipe(name, (*overrides, *settings.set)) for name in names.split(","))
            comparison = Comparison(recipes, (images.name,), tuple(range(settings.seeds)), folder / "runs")
            rows += comparison.run(lambda name, images=images: images.load(), observer=EpochLines())
            runs = (comparison.folder(recipe, images.name, 0) for recipe in recipes)
            timings += [predict_time(run.path, images) for run in runs if run]  # None if a longer recipe's run serves
    except MutualignError as error:
        raise SystemExit(f"benchmarks/own_images.py: {error}") from None
    for row in timings:
        console.print(f"{row['name']}: {row['images']:,} images in {row['seconds']} s", highlight=False)
    for summary in summarise(rows):
        accuracies = f"target {summary.target_by('last').percent()}, source {summary.source.percent()}"
        console.print(f"{summary.task}, {summary.recipe}: {accuracies} (n = {summary.source.n})", highlight=False)
    plain = [row.to_plain() for row in rows]
    results_file.write(settings.out, origin, plain, shapes=SHAPES_ARE, timings=timings)


if __name__ == "__main__":
    main()
