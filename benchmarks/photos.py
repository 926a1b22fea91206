"""Runs on photos: photos per second, start of a second run, training of the head, and memory for many photos.

Each is measured in a process of its own, with a cache of its own. Processor time is that of all threads, which other
programs on the machine hardly change.
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
from measurements import Bound, Measurements, print_table
from PIL import Image

SIDE = 224
FEATURES, FIRST_STEP, PROCESSOR = "features, decoding included", "first step", "processor time"
REQUIRED: dict[tuple[str, str], Bound] = {
    (FEATURES, "one view"): (">=", 60.0),
    (FIRST_STEP, "second run"): ("<=", 3.0),
    ("training of the head", "second run"): ("<=", 45.0),
    ("peak memory", "features from a file"): ("<=", 2048.0),
}


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


def measure(settings: Settings) -> Measurements:
    """Measure everything, one after the other."""
    results = Measurements()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_photos(folder, settings.photos)
        make_vectors(folder, settings.vectors)
        for case, views in (("one view", 1), ("six views, the recipe's", 6)):
            found = call(settings, "features", folder, f"--photos={views}")
            results.add(FEATURES, case, "photos/s", found["photos_per_second"])
            results.add(f"{PROCESSOR} of a photo", case, "ms", 1000 * found["cpu_seconds"])
        for case in ("first run, which computes the source's features", "second run"):
            run = call(settings, "run", folder)
            results.add(FIRST_STEP, case, "s", run["first_step"])
            results.add(f"{PROCESSOR} to the first step", case, "s", run["cpu_seconds"])
        results.add("training of the head", "second run", "s", run["train_seconds"])
        results.add("from start to result", "second run", "s", run["whole"])
        results.add("peak memory", "features from a file", "MiB", call(settings, "memory", folder)["peak_mib"])
    return results


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
    rows = measure(settings).rows(lambda name, case: REQUIRED.get((name, case)))
    results_file.write(settings.out, origin, rows, photos=settings.photos, vectors=settings.vectors)
    print_table("runs on photos", rows)


if __name__ == "__main__":
    main()
