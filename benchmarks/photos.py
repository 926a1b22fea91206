"""Runs on photos: photos per second, start of a second run, training of the head, and memory for many photos.

Each is measured in a process of its own, with a cache of its own. `cpu_seconds` is the processor time of all threads,
which other programs on the machine hardly change: of one photo, or of the whole measurement.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import results_file
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

SIDE = 224
REQUIRED = {"features_of_one_view": 60.0, "second_run": 3.0, "head_training": 45.0, "memory": 2048.0}


@dataclass(frozen=True)
class Settings:
    """Measure runs on photos. A few minutes on two idle cores."""

    photos: int = 240
    """photos of 224 pixels whose features are computed, of each domain"""
    vectors: int = 100_000
    """photos whose features are in a file, for the memory"""
    source: Path | None = None
    """class folders to train on instead of made photos, as for `mutualign run`"""
    target: Path | None = None
    """photos without labels, with --source"""
    out: Path = Path("results/photos.json")
    """where the numbers are written"""
    part: Literal["", "features", "run", "memory"] = ""
    """measure only this, in this process: for the script itself"""
    folder: Path = Path()
    """where the script keeps its files"""


# What a process of its own measures -----------------------------------------------------------------------------------


def measure_features(settings: Settings, views: int) -> dict[str, float]:
    """Photos per second, from files to kept features; the network is loaded before."""
    from mutualign.data.features.extract import extract
    from mutualign.data.features.network import feature_network
    from mutualign.data.features.settings import FeatureSettings
    from mutualign.data.folders.listing import list_unlabelled
    from mutualign.data.folders.scan import scan

    chosen = FeatureSettings(views=views)
    feature_network(chosen.pretrained)
    scanned = scan(list_unlabelled(settings.folder / "target"), "target")
    start, used = time.perf_counter(), time.process_time()
    extract(scanned, chosen, "target")
    seconds, used = time.perf_counter() - start, time.process_time() - used
    return {"photos_per_second": len(scanned.listing) / seconds, "cpu_seconds": used / len(scanned.listing)}


def measure_run(settings: Settings) -> dict[str, float]:
    """Seconds from the start of the process to the first training step, and of training the head."""
    started = float(os.environ["STARTED"])
    from mutualign.cli.app import main
    from mutualign.training.loop import StageTrainer

    step, first = StageTrainer.step, []

    def timed(trainer: StageTrainer) -> None:
        first.append((time.time(), time.process_time()))
        step(trainer)

    StageTrainer.step = timed  # type: ignore[method-assign]
    folders = [settings.source or settings.folder / "source", settings.target or settings.folder / "target"]
    runs = settings.folder / f"runs-{started}"
    sys.argv[1:] = ["run", "--source", str(folders[0]), "--target", str(folders[1]), "--out", str(runs)]
    main()
    (result,) = runs.rglob("result.json")
    trained = json.loads(result.read_text(encoding="utf-8"))["stages"][-1]["train_seconds"]
    whole = time.time() - started
    return {"first_step": first[0][0] - started, "cpu_seconds": first[0][1], "train_seconds": trained, "whole": whole}


def measure_memory(settings: Settings) -> dict[str, float]:
    """Peak memory, in MiB, of an epoch of `photos` on a file of features."""
    from mutualign.cli.app import main

    files = [settings.folder / "source.npz", settings.folder / "target.npy"]
    places = ["--source", str(files[0]), "--target", str(files[1]), "--out", str(settings.folder / "memory")]
    sys.argv[1:] = ["run", *places, "--set", "stages.0.epochs=1"]
    main()
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


# The whole ------------------------------------------------------------------------------------------------------------


def make_photos(folder: Path, count: int) -> None:
    """Write JPEG photos of 224 pixels: source/CLASS/NUMBER.jpg and target/NUMBER.jpg, smooth noise of two colours."""
    rng = np.random.default_rng(0)
    for domain in ("source", "target"):
        for number in range(count):
            light = number % 2
            coarse = rng.integers(90 * light, 120 + 90 * light, (28, 28, 3), dtype=np.uint8)
            place = folder / domain / (("dark", "light")[light] if domain == "source" else "") / f"{number:05}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place, quality=90)


def make_vectors(folder: Path, count: int) -> None:
    """Write features of many photos, as float16: a source with labels, of 2,000 at most, and a target."""
    rng = np.random.default_rng(0)
    few = min(count, 2000)
    labels = np.arange(few) % 10
    source = rng.random((few, 1280), dtype=np.float32) + (labels[:, None] == np.arange(1280) % 10)
    np.savez(folder / "source.npz", X=source.astype(np.float16), y=labels)  # noqa: TID251 - plain arrays
    target = rng.random((count, 1280), dtype=np.float32)
    np.save(folder / "target.npy", target.astype(np.float16))  # noqa: TID251 - a plain array


def call(settings: Settings, part: str, folder: Path, *more: str) -> dict[str, Any]:
    """Measure a part in a process of its own."""
    places = [
        f"--{name}={place}" for name, place in (("source", settings.source), ("target", settings.target)) if place
    ]
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder), *places, *more]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "STARTED": str(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{part}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def measure(settings: Settings) -> list[dict[str, Any]]:
    """Measure everything, one after the other."""
    rows = []

    def add(name: str, value: float, unit: str, **more: Any) -> None:
        required = REQUIRED.get(name)
        most = unit != "photos/s"
        met = None if required is None else value <= required if most else value >= required
        rows.append({"name": name, "value": round(value, 2), "unit": unit, "required": required, "met": met, **more})

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_photos(folder, settings.photos)
        make_vectors(folder, settings.vectors)
        for name, views in (("features_of_one_view", 1), ("features_of_six_views", 6)):
            found = call(settings, "features", folder, f"--photos={views}")
            cpu = round(found["cpu_seconds"], 4)
            add(name, found["photos_per_second"], "photos/s", photos=settings.photos, views=views, cpu_seconds=cpu)
        first, second = (call(settings, "run", folder) for _ in range(2))
        add("first_run", first["first_step"], "s", cpu_seconds=round(first["cpu_seconds"], 2))
        add("second_run", second["first_step"], "s", cpu_seconds=round(second["cpu_seconds"], 2))
        add("head_training", second["train_seconds"], "s")
        add("second_run_as_a_whole", second["whole"], "s")
        add("memory", call(settings, "memory", folder)["peak_mib"], "MiB", photos=settings.vectors)
    return rows


def main() -> None:
    settings = tyro.cli(Settings, description=Settings.__doc__)
    if settings.part:
        parts = {"run": measure_run, "memory": measure_memory}
        if settings.part == "features":
            found = measure_features(settings, views=settings.photos)
        else:
            found = parts[settings.part](settings)
        print(json.dumps(found))
        return
    origin = results_file.origin()
    rows = measure(settings)
    results_file.write(settings.out, origin, rows)
    table = Table("measured", "value", "unit", "required", "met", "cpu seconds")
    for row in rows:
        required, met, cpu = (str(row.get(name) or "") for name in ("required", "met", "cpu_seconds"))
        table.add_row(row["name"], f"{row['value']:,.2f}", row["unit"], required, met, cpu)
    Console().print(table)


if __name__ == "__main__":
    main()
