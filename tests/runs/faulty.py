"""A plugin for tests: a small task, and methods that kill their process, fail, or wait for the others' faults.

Every process that trains one of them adds its process id to the file METHOD.log in the folder $FAULTS.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from mutualign.data.datasets.registry import register_task
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.methods.base import Method
from mutualign.methods.registry import register_method
from mutualign.runs.work import POLL_SECONDS

FATAL_STEP = 3  # of an epoch of two steps: in the middle of the second one


@register_task("bright", "bright or dark images; inverted in the target")
def bright(folder: Path) -> Task:
    def make(seed: int) -> tuple[LabelledImages, TargetDataset]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(40) % 2
        pixels = torch.randint(90, (40, 4, 4, 1), generator=generator) + 120 * labels.view(40, 1, 1, 1)
        images = pixels.to(torch.uint8)
        return LabelledImages(UnlabelledImages(images), labels), TargetDataset(UnlabelledImages(255 - images), labels)

    (source, target), (source_test, target_test) = make(0), make(1)
    return Task("bright", "bright or dark, 4x4", ("dark", "bright"), source, source_test, target, target_test)


def attempts(method: str) -> list[int]:
    """The ids of the processes that have trained a method."""
    log = Path(os.environ["FAULTS"]) / f"{method}.log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


class Faulty(Method):
    """Source cross-entropy, by a method that something happens to at the fatal step."""

    def __init__(self, classifier, config):
        super().__init__(classifier)
        self.done, self.name = 0, type(self).__name__.lower()

    def forward(self, batch, progress):
        if not self.done:
            with (Path(os.environ["FAULTS"]) / f"{self.name}.log").open("a") as log:
                log.write(f"{os.getpid()}\n")
        logits = self.classifier(batch.images).float()
        return {"class": F.cross_entropy(logits[: batch.n_source], batch.labels)}, {}

    def after_step(self):
        self.done += 1
        if self.done == FATAL_STEP:
            self.fault()

    def fault(self):
        pass


@register_method("once")
class Once(Faulty):
    """Kills the first process that trains it."""

    def fault(self):
        if len(attempts("once")) == 1:
            os.kill(os.getpid(), signal.SIGKILL)


@register_method("always")
class Always(Faulty):
    """Kills every process that trains it."""

    def fault(self):
        os.kill(os.getpid(), signal.SIGKILL)


@register_method("broken")
class Broken(Faulty):
    """Raises an error."""

    def fault(self):
        raise RuntimeError("a bug\nin two lines")


@register_method("mortal")
class Mortal(Faulty):
    """Kills its process at one step of seven, drawn by every process, and three times for certain."""

    def after_step(self):
        self.done += 1
        due = self.done == FATAL_STEP and len(attempts("kills")) < 3
        if due or random.SystemRandom().random() < 1 / 7:
            with (Path(os.environ["FAULTS"]) / "kills.log").open("a") as log:
                log.write(f"{os.getpid()}\n")
            if "SPARED" not in os.environ:
                os.kill(os.getpid(), signal.SIGKILL)


@register_method("steady")
class Steady(Faulty):
    """Trains while others are killed: waits until that has happened."""

    def fault(self):
        deadline = time.monotonic() + 100
        while not (attempts("once") and len(attempts("always")) == 2) and time.monotonic() < deadline:
            time.sleep(0.05)


@register_method("patient")
class Patient(Faulty):
    """Waits, once it has said so, until the file `go` is there; then for a worker's next look for its stop file."""

    def fault(self):
        folder = Path(os.environ["FAULTS"])
        if (folder / "go").exists():
            return
        with (folder / "waiting.log").open("a") as log:
            log.write(f"{os.getpid()}\n")
        deadline = time.monotonic() + 100
        while not (folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2 * POLL_SECONDS)
