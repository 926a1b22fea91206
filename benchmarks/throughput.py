"""Throughput: our training step compared with the machine's matmul rate and with a plain loop.

Every round measures everything once, in turn, so that a machine that slows down does so for all. Values are medians
over the rounds, with minimum and maximum; ratios are taken within a round. The README here explains the rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import plain_loop
import results_file
import sklearn
import torch
import tyro
from measurements import Bound, Measurements, print_table
from rich.console import Console
from rich.progress import track
from scaling import peak_mib
from torch.utils.flop_counter import FlopCounterMode

from mutualign.data.datasets import find_task
from mutualign.data.fetch.data_files import data_folder, require
from mutualign.data.task import Task
from mutualign.data.types import Batch, ImageShape, LabelledImages, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.methods.mutual_align import MutualAlign
from mutualign.recipes import Recipe, load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.training.batches import Batches
from mutualign.training.distributed import make_fabric
from mutualign.training.hardware import bf16_is_faster, keep_freed_memory
from mutualign.training.loop import StageTrainer
from mutualign.training.setup import build_classifier, build_method

WORKERS = (0, 1, 2)  # of the plain loop's DataLoader
DATA_STEPS = 20  # batches per timed training step, when only the data path is measured
WITHIN_FORWARD = {"augmentation", "teacher"}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
AT_LEAST = {  # required on CPU
    "our rate / matmul rate": 55.0,
    "plain step, decoded an item / our step": 3.5,
    "fast: our rate / matmul rate": 50.0,
}
AT_MOST = {"peak memory": 2048.0, "fast: augmentation / our step": 10.0}


@dataclass(frozen=True)
class Settings:
    """Measure the training step, the data path, a plain loop to compare with, and memory. Needs an idle machine."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    task: tuple[str, ...] = ("mnist-mnistm", "mnist-mnistm-resampled")
    """tasks to train on; `digits` needs no files"""
    steps: int = 8
    """training steps timed per round and measurement"""
    rounds: int = 5
    """how many times everything is measured"""
    warm_up: int = 5
    """untimed steps before the timed ones"""
    size: int = 2048
    """rows and columns of the matrices whose product is timed"""
    out: Path = Path("results/throughput.json")
    """where the numbers are written"""


class OurStep:
    """The package's trainer of a recipe's first stage on a task, in one precision."""

    def __init__(
        self,
        task: Task,
        precision: str,
        recipe: str | Recipe = "dann",
        overrides: Sequence[str] = (),
        accelerator: str = "auto",
    ) -> None:
        self.recipe = load_recipe(recipe, overrides) if isinstance(recipe, str) else recipe
        self.fabric = make_fabric(precision, accelerator)
        classes = len(task.class_names)
        stage = self.recipe.stages[0]
        method = build_method(stage, build_classifier(self.recipe, task.shape, classes))
        self.batches = Batches(
            task.source_train.to(self.fabric.device),
            task.target_train.images.to(self.fabric.device),
            task.shape.channels,
            stage.batch_size,
            seed=0,
            stage=0,
        )
        self.trainer = StageTrainer(0, stage, 0, method, self.batches, self.fabric)
        self.part_seconds: dict[str, float] = defaultdict(float)

    def seconds(self, steps: int, warm_up: int) -> float:
        """Return seconds per training step; after `time_parts`, `part_seconds` holds those of its parts."""
        for _ in range(warm_up):
            self.trainer.step()
        self.part_seconds.clear()
        seconds = _seconds(self.fabric.device, lambda: [self.trainer.step() for _ in range(steps)])
        for part in self.part_seconds:
            self.part_seconds[part] /= steps
        for part in WITHIN_FORWARD & self.part_seconds.keys():
            self.part_seconds["forward"] -= self.part_seconds[part]
        return seconds / steps

    def data_seconds(self, count: int) -> float:
        """Return seconds per batch, without a model."""
        _ = self.batches[0]  # draws the order of the first pass
        return _seconds(self.fabric.device, lambda: [len(self.batches[step]) for step in range(count)]) / count

    def time_parts(self) -> None:
        """Measure the parts of each step from now on. `forward` includes the losses."""
        trainer, method = self.trainer, self.trainer.method
        if isinstance(method, MutualAlign):
            method.strong_views = self._timed("augmentation", method.strong_views)  # type: ignore[method-assign]
            method.teacher.forward = self._timed("teacher", method.teacher.forward)  # type: ignore[method-assign]
            method.after_step = self._timed("moving average", method.after_step)  # type: ignore[method-assign]
        trainer.batches = _TimedBatches(self.batches, self._timed("data", self.batches.__getitem__))  # type: ignore[assignment]
        method.forward = self._timed("forward", method.forward)  # type: ignore[method-assign]
        trainer.fabric.backward = self._timed("backward", trainer.fabric.backward)
        for optimiser in trainer.optimisers.values():
            optimiser.torch.step = self._timed("optimiser", optimiser.torch.step)  # type: ignore[method-assign]

    def _timed(self, part: str, function: Callable[..., Any]) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **keywords)
            self.part_seconds[part] += time.perf_counter() - start
            return result

        return call

    def count_flops(self) -> int:
        """Count the floating-point operations of one training step with torch."""
        with FlopCounterMode(display=False) as counter:
            self.trainer.step()
        return counter.get_total_flops()


class _TimedBatches:
    """Batches whose lookup goes through a function that measures time."""

    def __init__(self, batches: Batches, take: Callable[[int], Batch]) -> None:
        self._batches, self._take = batches, take

    def __getitem__(self, step: int) -> Batch:
        return self._take(step)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


def dann_step_flops(shape: ImageShape, classes: int, n_source: int, n_target: int) -> int:
    """Return the floating-point operations of a DANN step of the published network; a multiply-add counts as two.

    A backward pass costs twice the forward pass of the layer, except in the first layer: images need no gradient.
    """
    n, channels, height, width = n_source + n_target, *shape
    features = 64 * ((height - 8) // 2) * ((width - 8) // 2)
    conv1 = 2 * n * (height - 4) * (width - 4) * 32 * (5 * 5 * channels)
    conv2 = 2 * n * (height - 8) * (width - 8) * 64 * (5 * 5 * 32)
    class_head = 2 * n_source * (features * 32 + 32 * classes)
    discriminator = 2 * n * (features * 32 + 32)
    return 2 * conv1 + 3 * (conv2 + class_head + discriminator)


def matmul_rate(size: int, dtype: torch.dtype, device: torch.device, repeats: int = 4) -> float:
    """Return the GFLOP/s of a product of square matrices: the best of several, with the second in either layout."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    calls = [partial(torch.matmul, a, second) for second in (b, b.t()) for _ in range(repeats)]
    return 2 * size**3 / min(_seconds(device, call) for call in calls) / 1e9


def peak_memory(task_name: str, data: Path, steps: int) -> float:
    """Return the peak memory, in MiB, of loading a task and a short run of `mani`, end to end.

    The images are built without a cache, which takes more memory than loading them from one. Both stages train for
    `steps` steps and are evaluated on all test images. Call it in a fresh process.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        task, recipe = find_task(task_name).load(data), load_recipe("mani", ["stages.0.epochs=1", "stages.1.epochs=1"])
        rows, source = steps * recipe.stages[0].batch_size, task.source_train
        few = LabelledImages(UnlabelledImages(source.images.pixels[:rows]), source.labels[:rows])  # a view: all stay
        Experiment.start(recipe, dataclasses.replace(task, source_train=few), 0, Path(folder) / "run").run()
    return peak_mib()


def _seconds(device: torch.device, call: Callable[[], Any]) -> float:
    """Return the seconds that a call takes, including all that it starts on the device."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    start = now()
    call()
    return now() - start


def _fresh_process(**options: Any) -> ProcessPoolExecutor:
    """Return a pool of one new interpreter, without this one's memory and allocator settings."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), **options)


@contextlib.contextmanager
def _plain_loop(task: Task, data: Path, batch_size: int) -> Iterator[Callable[..., float]]:
    """Provide `plain_loop.seconds` in its own process, which holds the task's digits and photos."""
    paths = require(find_task(task.name).files, task.name, data)
    photos = [path for path in paths if path.suffix == ".jpg"]
    if not photos:  # the embedded task uses scikit-learn's
        photos = sorted((Path(sklearn.__file__).parent / "datasets/images").glob("*.jpg"))
    digits, labels = task.source_train.images.pixels[..., 0].numpy(), task.source_train.labels.tolist()
    with _fresh_process(initializer=plain_loop.start, initargs=(digits, labels, photos, batch_size)) as process:
        yield lambda *arguments: process.submit(plain_loop.seconds, *arguments).result()


def measure(settings: Settings) -> list[dict[str, Any]]:
    """Measure everything and return rows."""
    keep_freed_memory()  # as every run does
    data, results, fabric = data_folder(settings.data), Measurements(), make_fabric("auto")
    tasks = {name: find_task(name).load(data) for name in settings.task}
    # The first precision is what `auto` chooses.
    precisions = ["bf16", "float32"] if bf16_is_faster(fabric.device) else ["float32"]
    ours = {(name, precision): OurStep(task, precision) for name, task in tasks.items() for precision in precisions}
    fast = {name: OurStep(task, precisions[0], "fast") for name, task in tasks.items()}
    on_cpu = fabric.device.type == "cpu"

    task, first = tasks[settings.task[-1]], ours[settings.task[-1], precisions[0]]
    n, flops = first.recipe.stages[0].batch_size, first.count_flops()
    fast_flops = fast[task.name].count_flops()
    results.add("operations of a step", "counted by torch", "GFLOP", flops / 1e9)
    formula = dann_step_flops(task.shape, len(task.class_names), n, n)
    results.add("operations of a step", "closed form", "GFLOP", formula / 1e9)
    results.add("fast: operations of a step", "counted by torch", "GFLOP", fast_flops / 1e9)

    with _plain_loop(task, data, n) if on_cpu else contextlib.nullcontext() as plain_seconds:
        for step in (*ours.values(), *fast.values()) if on_cpu else ():
            step.time_parts()
        for _ in track(range(settings.rounds), "rounds", console=Console(stderr=True)):
            for precision in precisions:
                rate = matmul_rate(settings.size, DTYPES[precision], fabric.device)
                results.add("matmul rate", precision, "GFLOP/s", rate)
            for (name, precision), step in ours.items():
                _measure_step(results, step, f"{name}, {precision}", precision, settings, flops)
            for name, step in fast.items():
                _measure_step(results, step, f"{name}, {precisions[0]}", precisions[0], settings, fast_flops, "fast: ")
            for name in tasks:
                _measure_data(results, ours[name, precisions[0]], f"{name}, {precisions[0]}", settings)
            for variant, workers in itertools.product(plain_loop.VARIANTS, WORKERS) if plain_seconds else ():
                seconds = plain_seconds(variant, workers, settings.steps, settings.warm_up)
                results.add(f"plain step, {variant}", f"{workers} worker(s)", "ms", 1e3 * seconds)

    if on_cpu:
        _compare(results, [f"{name}, {precisions[0]}" for name in tasks])
        for name in tasks:
            with _fresh_process() as process:
                peak = process.submit(peak_memory, name, data, settings.steps).result()
            results.add("peak memory", name, "MiB", peak)
    return results.rows(partial(bound, judged=precisions[0]) if on_cpu else None)


def bound(name: str, case: str, judged: str) -> Bound | None:
    """Return what is required of a row; of ratios only in the precision `judged`."""
    if name in AT_LEAST and case.endswith(judged):
        return ">=", AT_LEAST[name]
    if name in AT_MOST and (name == "peak memory" or case.endswith(judged)):
        return "<=", AT_MOST[name]
    return None


def _measure_step(
    results: Measurements, step: OurStep, case: str, precision: str, settings: Settings, flops: int, of: str = ""
) -> None:
    """Measure a training step, its parts (on a GPU: steps per second) and its rate; `of` is the prefix of row names."""
    seconds = step.seconds(settings.steps, settings.warm_up)
    rate = flops / seconds / 1e9
    results.add(f"{of}our step", case, "ms", 1e3 * seconds)
    for part, part_seconds in step.part_seconds.items():
        results.add(f"{of}our step: {part}", case, "ms", 1e3 * part_seconds)
    if step.part_seconds:
        results.add(f"{of}our step: the rest", case, "ms", 1e3 * (seconds - sum(step.part_seconds.values())))
    else:
        results.add(f"{of}our steps a second", case, "1/s", 1 / seconds)
    if "augmentation" in step.part_seconds:
        share = 100 * step.part_seconds["augmentation"] / seconds
        results.add(f"{of}augmentation / our step", case, "%", share)
    results.add(f"{of}our rate", case, "GFLOP/s", rate)
    results.add(f"{of}our rate / matmul rate", case, "%", 100 * rate / results.values["matmul rate"][precision][-1])


def _measure_data(results: Measurements, step: OurStep, case: str, settings: Settings) -> None:
    """Measure the data path without a model."""
    seconds, batch_size = step.data_seconds(DATA_STEPS * settings.steps), step.batches.source_order.batch_size
    results.add("data path alone, batches", case, "1/s", 1 / seconds)
    results.add("data path alone, images", case, "1/s", 2 * batch_size / seconds)
    results.add("data path alone / our step", case, "%", 1e5 * seconds / results.values["our step"][case][-1])


def _compare(results: Measurements, ours: list[str]) -> None:
    """Compare the plain step, at its best number of workers, with ours in each round."""
    for variant in plain_loop.VARIANTS:
        plain = results.values[f"plain step, {variant}"]
        best = min(plain, key=lambda case: statistics.median(plain[case]))
        for case in ours:
            pairs = zip(plain[best], results.values["our step"][case], strict=True)
            ratios = [plain_step / our_step for plain_step, our_step in pairs]
            results.add(f"plain step, {variant} / our step", f"{best} / {case}", "x", *ratios)


def main() -> None:
    """Measure, print a table, write the JSON."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin = results_file.origin()
    try:
        rows = measure(settings)
    except MutualignError as error:
        raise SystemExit(f"benchmarks/throughput.py: {error}") from None
    print_table(origin["hardware"], rows)
    used = {key: getattr(settings, key) for key in ("task", "steps", "rounds", "warm_up", "size")}
    results_file.write(settings.out, origin, rows, versions=results_file.software(), settings=used)


if __name__ == "__main__":
    main()
