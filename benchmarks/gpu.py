"""Everything that needs a GPU, in one call: correctness, speed, compiled steps, and the published systems.

The results file is written after every case. A case that fails, or has no time left, is listed there and does not stop
the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import results_file
import torch
import tyro
from measurements import Bound, Measurements, print_table
from rich.console import Console
from throughput import DTYPES, OurStep, matmul_rate
from torch.utils._python_dispatch import TorchDispatchMode

from mutualign.data.datasets import find_task
from mutualign.data.fetch.data_files import data_folder
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.methods import METHODS
from mutualign.runs import api
from mutualign.runs.network_choice import NetworkChoice
from mutualign.training.distributed import make_fabric
from mutualign.training.hardware import bf16_is_faster, describe_hardware, keep_freed_memory

ROOT = Path(__file__).parents[1]
GOLDEN, TWO_GPUS, COMPILED, GOAL = "golden losses", "two GPUs", "compiled losses", "seconds to 97 %, fast"
PHOTOS = "photos, fine-tuned"
REQUIRED: dict[str, Bound] = {  # of relative differences, and of seconds
    GOLDEN: ("<=", 1e-2),  # another seed, or a tenth more learning rate, is further away in most methods
    TWO_GPUS: ("<=", 1e-3),
    COMPILED: ("<=", 2e-2),  # bf16 has three digits
    GOAL: ("<=", 5.0),
}
GRACE = 30.0  # seconds that runs of the published systems have to save their state


@dataclass(frozen=True)
class Settings:
    """Check and measure on a GPU: one if there is one, two for the check of several."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    minutes: float = 10.0
    """time for everything; cases that do not fit are left out, and the next call resumes the published systems"""
    skip: tuple[str, ...] = ()
    """what to leave out, by the first words of its name, such as `golden` or `compiled: fast`"""
    dry_run: bool = False
    """do everything on a CPU, with few steps and embedded data: does it run?"""
    out: Path = Path("results/gpu.json")
    """where the numbers are written; those of the published systems go beside it, to NAME-published.json"""
    runs: Path = Path("runs/gpu")
    """where the runs of the published systems are"""


class DrawnOnCPU(TorchDispatchMode):
    """Context in which random numbers come from the CPU's generator, whatever the device: a GPU's draws are others."""

    ops = torch.ops.aten
    draws = frozenset({ops.rand, ops.randn, ops.randint, ops.randperm, torch.ops.mutualign.random_bytes})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket is self.ops.rand_like:
            return torch.rand(args[0].shape, dtype=args[0].dtype).to(args[0].device)
        if func.overloadpacket not in self.draws:
            return func(*args, **kwargs)
        device = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.device)), None)
        drawn = func(*map(_on_cpu, args), **{name: _on_cpu(value) for name, value in kwargs.items()})
        return drawn if device is None else drawn.to(device)


def _on_cpu(argument: Any) -> Any:
    return torch.device("cpu") if isinstance(argument, torch.device) else argument


@dataclass(frozen=True)
class Gpu:
    """The cases of one call; each is a function that adds its values to the measurements."""

    settings: Settings
    results: Measurements

    @property
    def accelerator(self) -> str:
        """As for `mutualign run --accelerator`."""
        return "cpu" if self.settings.dry_run else "cuda"

    @cached_property
    def precision(self) -> str:
        """What `auto` chooses."""
        return "bf16" if bf16_is_faster(make_fabric("float32", self.accelerator).device) else "float32"

    @cached_property
    def task(self) -> Task:
        """What is trained on."""
        name = "digits@100" if self.settings.dry_run else "mnist-mnistm"
        return find_task(name).load(data_folder(self.settings.data))

    def cases(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield the name of each case and what it does; the published systems, last, take the time that is left."""
        for method in ("dann", "mutual_align") if self.settings.dry_run else METHODS:
            yield f"{GOLDEN}: {method}", partial(self.golden, method)
        if self.settings.dry_run or torch.cuda.device_count() > 1:
            yield TWO_GPUS, self.two_gpus
        yield "matmul rate", self.matmul
        for name in ("dann", "fast", PHOTOS):
            yield f"steps: {name}", partial(self.steps, name)
        yield GOAL, self.seconds_to_goal
        for name in ("dann", "fast"):
            yield f"compiled: {name}", partial(self.compiled, name)

    def golden(self, method: str) -> None:
        """How far a method's losses are from those that the tests expect, with the same random numbers."""
        from tests.golden import furthest, golden_losses, losses

        with DrawnOnCPU(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            found = losses(method, accelerator=self.accelerator)
        self.results.add(GOLDEN, method, "", furthest(found, golden_losses()[method]))

    def two_gpus(self) -> None:
        """How far the losses of an epoch of DANN with two processes are from those with one."""
        task, short = "digits", ["stages.0.epochs=1", "precision=float32"]
        if self.settings.dry_run:
            task, short = "digits@100", [*short, "backbone=mlp"]
        with tempfile.TemporaryDirectory() as folder:
            one = api.run(task, "dann", overrides=short, out=f"{folder}/one", accelerator=self.accelerator)
            command = [sys.executable, "-m", "mutualign", "run", "--task", task, "--recipe", "dann"]
            command += ["--devices", "2", "--accelerator", self.accelerator, "--out", f"{folder}/two", "--set", *short]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            two = api.load_run(next(Path(folder).glob("two/*/*/seed-0")))
        if two.result is None or not two.result.hardware.endswith("2 processes"):
            raise MutualignError("the run of two processes is not complete")
        for name in (name for name in one.epochs[0].means if name.startswith("loss_")):
            expected, found = (run.epochs[0].means[name] for run in (one, two))
            self.results.add(TWO_GPUS, f"dann, {name}", "", abs(found - expected) / abs(expected))

    def matmul(self) -> None:
        """The rate that steps are compared with."""
        size, device = (64 if self.settings.dry_run else 8192), make_fabric("float32", self.accelerator).device
        self.results.add("matmul rate", self.precision, "GFLOP/s", matmul_rate(size, DTYPES[self.precision], device))

    def step_of(self, name: str) -> OurStep:
        """Return a trainer of a recipe that starts from seed 0; photos, fine-tuned, are noise of their size."""
        torch.manual_seed(0)
        if name != PHOTOS:
            small = ["stages.0.batch_size=4", "backbone=mlp"] if self.settings.dry_run else []
            return OurStep(self.task, self.precision, name, small, accelerator=self.accelerator)
        small = ["stages.0.batch_size=4"] if self.settings.dry_run else []
        recipe = NetworkChoice(finetune=True).apply("photos", small)
        return OurStep(noise(48 if small else 224), self.precision, recipe, accelerator=self.accelerator)

    def steps(self, name: str) -> None:
        """Steps a second, and their share of the matmul rate."""
        step = self.step_of(name)
        flops = step.count_flops()
        self._add_steps(step, f"{name}, {self.precision}", flops)

    def _add_steps(self, step: OurStep, case: str, flops: int) -> None:
        peak = self.results.values["matmul rate"][self.precision][-1]
        for _ in range(1 if self.settings.dry_run else 5):
            step.trainer.steps_done = 0  # the last batch of a pass is smaller: a compiled step would be compiled anew
            seconds = step.seconds(*((1, 0) if self.settings.dry_run else (100, 20)))
            self.results.add("steps a second", case, "1/s", 1 / seconds)
            self.results.add("rate / matmul rate", case, "%", 100 * flops / seconds / 1e9 / peak)

    def compiled(self, name: str) -> None:
        """The same with the method compiled into CUDA graphs, and how far its losses are from those without."""
        torch._inductor.config.fallback_random = True  # the draws of eager steps
        how: dict[str, Any] = {"backend": "eager"} if self.settings.dry_run else {"mode": "reduce-overhead"}
        eager, step = self.step_of(name), self.step_of(name)
        flops = eager.count_flops()
        step.trainer.method.compile(**how)
        step.trainer.step()
        for key, value in step.trainer.sums.items():
            if key.startswith("loss_"):
                expected = float(eager.trainer.sums[key])
                difference = abs(float(value) - expected) / max(abs(expected), 1e-9)
                self.results.add(COMPILED, f"{name}, {key}", "", difference)
        self._add_steps(step, f"{name}, {self.precision}, compiled", flops)

    def seconds_to_goal(self) -> None:
        """Seconds of training until `fast` is right on 97 % of the target test images, and where it ends."""
        short = ["stages.0.epochs=1", "stages.0.epoch_steps=0", "backbone=mlp"] if self.settings.dry_run else []
        where: dict[str, Any] = {"data": self.settings.data, "accelerator": self.accelerator}
        with tempfile.TemporaryDirectory() as folder:
            epochs = api.run(self.task.name, "fast", overrides=short, out=folder, **where).epochs
        curve = [(epoch.train_seconds, epoch.target_accuracy or 0.0) for epoch in epochs]
        seconds, accuracy = curve[-1]
        self.results.add("training, fast", self.task.name, "s", seconds)
        self.results.add("target accuracy, fast", self.task.name, "%", 100 * accuracy)
        if first := next((seconds for seconds, accuracy in curve if accuracy >= 0.97), None):
            self.results.add(GOAL, self.task.name, "s", first)


def noise(side: int, images: int = 256, classes: int = 31) -> Task:
    """A task on random images, which cost as much as photos."""

    def make() -> LabelledImages:
        pixels = torch.randint(256, (images, side, side, 3), dtype=torch.uint8)
        return LabelledImages(UnlabelledImages(pixels), torch.randint(classes, (images,)))

    train, test = make(), make()
    names = tuple(map(str, range(classes)))
    target = TargetDataset(make().images, None)
    return Task("noise", "random pixels", names, train, test, target, target)


def train_published(settings: Settings, seconds: float) -> None:
    """Train source only, DANN and MaNi on both variants, for some time; runs that are not complete resume next time."""
    out = settings.out.with_name(f"{settings.out.stem}-published.json")
    command = [sys.executable, "-m", "mutualign", "compare", "--no-baselines", "--out", str(settings.runs)]
    command += ["--save", str(out), "--force"]
    if settings.dry_run:
        command += ["--recipes", "source_only,dann", "--task", "digits@100", "--seeds", "1", "--accelerator", "cpu"]
        command += ["--set", "backbone=mlp", "stages.0.epochs=1"]
    else:
        command += ["--recipes", "source_only,dann,mani", "--seeds", "5"]
        command += ["--task", "mnist-mnistm-resampled,mnist-mnistm"]
        command += ["--jobs", str(max(1, min(5, (os.cpu_count() or 1) // 2)))]
        command += ["--data", str(settings.data)] if settings.data else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        status = process.wait(max(seconds - GRACE, 1.0))
    except subprocess.TimeoutExpired:
        process.terminate()  # it saves
        process.wait(GRACE)
    else:
        if status:
            raise MutualignError(f"the published systems: exit status {status}")
    finally:
        process.kill()


def bound(name: str, case: str) -> Bound | None:
    """Return what is required of a row."""
    return REQUIRED.get(name)


def main() -> None:
    """Do all cases that fit into the time, print a table, and fail if a case did."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    if not settings.dry_run and not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py: no GPU\n  hint:    --dry-run does everything on a CPU, in little")
    keep_freed_memory()
    sys.path.insert(0, str(ROOT))  # for the golden losses of the tests
    deadline = time.monotonic() + 60 * settings.minutes
    gpu, console = Gpu(settings, Measurements()), Console(stderr=True)
    origin = results_file.origin() | {"hardware": describe_hardware(make_fabric("auto", gpu.accelerator))}
    failed: dict[str, str] = {}
    left_out: list[str] = []
    published = ("published systems", lambda: train_published(settings, deadline - time.monotonic()))
    for name, case in (*gpu.cases(), published):
        left = max(deadline - time.monotonic(), 0)
        console.print(f"{int(left) // 60:3}:{int(left) % 60:02} left   {name}", highlight=False)
        try:
            if left == 0 or name.startswith(settings.skip):
                left_out.append(name)
            else:
                case()
        except Exception as error:  # the other cases are worth having
            failed[name] = f"{type(error).__name__}: {error}"
            console.print(f"failed: {failed[name]}", style="red", markup=False)
        results_file.write(settings.out, origin, gpu.results.rows(bound), failed=failed, left_out=left_out)
    print_table(origin["hardware"], gpu.results.rows(bound))
    if failed:
        raise SystemExit(f"benchmarks/gpu.py: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
