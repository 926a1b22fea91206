"""DANN in skada, in pytorch-adapt, in a plain PyTorch loop and here: one step, and seconds to an accuracy.

All train the published network on the same images with the same batch size, Adam and reversal of strength 1, in one
process. Every round measures each of them once, in turn; ratios are taken within a round. The peers get float images in
memory; ours reads its bytes. skada loads batches with its own loader; the others look up random rows.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import results_file
import sklearn
import torch
import torch.nn.functional as F
import tyro
from measurements import Bound, Measurements, print_table
from plain_loop import PlainDANN
from throughput import OurStep
from torch import Tensor, nn

from mutualign.data.datasets import find_task
from mutualign.data.fetch.data_files import data_folder
from mutualign.data.task import Task
from mutualign.data.types import TargetDataset, spread, to_floats
from mutualign.errors import MutualignError
from mutualign.evaluation.target_labels import target_accuracy
from mutualign.nn.layers import GradientReversal
from mutualign.training.hardware import bf16_is_faster, keep_freed_memory

CPU = torch.device("cpu")
BATCH = 64  # source images, and as many target images
OURS = "mutualign"
PACKAGES = ("skada", "skorch", "pytorch-adapt", "pytorch-metric-learning")
AT_LEAST = {"float32": 3.0, "the best of each": 7.0}  # times the fastest other


@dataclass(frozen=True)
class Settings:
    """Compare DANN with that of other packages on CPU. Needs an idle machine, skada, skorch and pytorch-adapt."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    task: str = "mnist-mnistm@6000"
    """the images; `digits` needs no files"""
    rounds: int = 5
    """how many times everything is measured, each time from other weights"""
    steps: int = 8
    """timed steps of a round"""
    learning_rate: float = 1e-3
    """of Adam, for all"""
    goal: float = 0.4
    """target test accuracy, on a thousand images"""
    limit: float = 12.0
    """seconds of training after which a run to the goal is stopped"""
    quick: bool = False
    """one round of one step, no training to the goal: does everything run?"""
    out: Path = Path("results/peers.json")
    """where the numbers are written"""


class System(Protocol):
    """DANN as one package does it."""

    def step(self) -> None:
        """Train on one batch, which it gets itself."""

    def logits(self, images: Tensor) -> Tensor:
        """Classify images [n, channels, height, width] in [0, 1]."""


class Peer:
    """What the others share: float images in memory, the network, and autocast with channels-last images in bf16."""

    def __init__(self, task: Task, bf16: bool) -> None:
        order = torch.channels_last if bf16 else torch.contiguous_format
        domains = task.source_train.images.pixels, task.target_train.images.pixels
        self.source, self.target = (to_floats(pixels, 3).contiguous(memory_format=order) for pixels in domains)
        self.labels, self.bf16 = task.source_train.labels, bf16
        self.network = PlainDANN(task.shape.height, task.shape.width, len(task.class_names))
        self.network.to(memory_format=order)  # type: ignore[call-overload]

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw source images, their labels, and target images."""
        rows, others = (torch.randint(len(images), (BATCH,)) for images in (self.source, self.target))
        return self.source[rows], self.labels[rows], self.target[others]

    def autocast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext()

    def logits(self, images: Tensor) -> Tensor:
        return self.network.eval().class_head(self.network.features(images))  # type: ignore[no-any-return]


class PlainLoop(Peer):
    """A loop as one would write it."""

    def __init__(self, task: Task, bf16: bool, learning_rate: float) -> None:
        super().__init__(task, bf16)
        self.optimiser = torch.optim.Adam(self.network.parameters(), learning_rate)
        self.is_source = torch.cat([torch.ones(BATCH), torch.zeros(BATCH)])

    def step(self) -> None:
        self.network.train()
        source, labels, target = self.batch()
        with self.autocast():
            class_logits, domain_logits = self.network(torch.cat([source, target]), BATCH)
            domain_loss = F.binary_cross_entropy_with_logits(domain_logits, self.is_source)
            loss = F.cross_entropy(class_logits, labels) + domain_loss
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


class PytorchAdapt(Peer):
    """pytorch-adapt's DANNHook; its mean of three losses with the weights of the others."""

    def __init__(self, task: Task, bf16: bool, learning_rate: float) -> None:
        from pytorch_adapt.hooks import DANNHook
        from pytorch_adapt.weighters import MeanWeighter

        super().__init__(task, bf16)
        weights = {"src_domain_loss": 0.5, "target_domain_loss": 0.5}
        parts = {"G": self.network.features, "C": self.network.class_head, "D": Squeezed(self.network.domain_head)}
        optimisers = [torch.optim.Adam(part.parameters(), learning_rate) for part in parts.values()]
        self.hook, self.models = DANNHook(optimisers, weighter=MeanWeighter(weights=weights)), parts
        self.domains = {"src_domain": torch.zeros(BATCH), "target_domain": torch.ones(BATCH)}

    def step(self) -> None:
        self.network.train()
        source, labels, target = self.batch()
        batch = {"src_imgs": source, "src_labels": labels, "target_imgs": target}
        with self.autocast():
            self.hook({**self.models, **batch, **self.domains})


class Skada(Peer):
    """skada's DANN, a skorch network, with its loader that draws as many images from either domain."""

    def __init__(self, task: Task, bf16: bool, learning_rate: float) -> None:
        super().__init__(task, bf16)
        with sklearn.config_context():  # skada changes a setting of scikit-learn when it is imported
            from skada.deep import DANN
            from skada.deep.base import DeepDADataset
        pixels = torch.cat([self.source, self.target])
        labels = torch.cat([self.labels, torch.full((len(self.target),), -1)])
        domains = torch.cat([torch.ones(len(self.source)), torch.full((len(self.target),), -2.0)])
        self.net = DANN(
            Chain(self.network),
            layer_name="features",
            reg=0.5,  # its domain loss is the sum of two means
            domain_classifier=Squeezed(nn.Sequential(GradientReversal(), self.network.domain_head)),
            domain_criterion=nn.BCEWithLogitsLoss(),
            optimizer=torch.optim.Adam,
            lr=learning_rate,
            batch_size=BATCH,
            train_split=None,
            verbose=0,
        )
        self.net.initialize()
        self.network = self.net.module_.base_module_.network  # skorch may have copied it
        self.batches = self._batches(DeepDADataset(pixels, labels, domains))

    def _batches(self, dataset: Any) -> Iterator[Any]:
        while True:
            yield from self.net.get_iterator(dataset, training=True)

    def step(self) -> None:
        with self.autocast():
            self.net.train_step(next(self.batches))


class Chain(nn.Module):
    """The classifier alone, with the layer names that skada looks for."""

    def __init__(self, network: PlainDANN) -> None:
        super().__init__()
        self.features = network.features  # first: skada hooks the first name of a layer
        self.network = network

    def forward(self, images: Tensor, sample_weight: None = None) -> Tensor:
        return self.network.class_head(self.features(images))  # type: ignore[no-any-return]


class Squeezed(nn.Module):
    """A discriminator's logits as [n]."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features).squeeze(1)  # type: ignore[no-any-return]


class Ours:
    """The package's trainer of the recipe `dann`."""

    def __init__(self, task: Task, bf16: bool, learning_rate: float) -> None:
        overrides = [f"stages.0.optim.lr={learning_rate}", f"stages.0.batch_size={BATCH}"]
        self.trainer = OurStep(task, "bf16" if bf16 else "float32", "dann", overrides, accelerator="cpu").trainer

    def step(self) -> None:
        self.trainer.method.train()
        self.trainer.step()

    def logits(self, images: Tensor) -> Tensor:
        classifier = self.trainer.method.classifier.eval()
        return classifier.head(classifier.features(images))  # type: ignore[no-any-return]


SYSTEMS: dict[str, Callable[[Task, bool, float], System]] = {
    OURS: Ours,
    "plain loop": PlainLoop,
    "pytorch-adapt": PytorchAdapt,
    "skada": Skada,
}


def step_seconds(system: System, steps: int) -> float:
    """Return the mean seconds of some steps."""
    start = time.perf_counter()
    for _ in range(steps):
        system.step()
    return (time.perf_counter() - start) / steps


def seconds_to(goal: float, limit: float, system: System, test: TargetDataset) -> float | None:
    """Train until the accuracy reaches a goal; it is looked at every ten steps. Return seconds of training, or None."""
    seconds, images = 0.0, to_floats(test.images.pixels, 3)
    while seconds < limit:
        seconds += 10 * step_seconds(system, 10)
        with torch.no_grad():
            accuracy = target_accuracy(system.logits(images), test)
        if accuracy is not None and accuracy >= goal:
            return seconds
    return None


def measure(settings: Settings) -> Measurements:
    """Measure everything."""
    keep_freed_memory()  # as every run of ours does; the others profit too
    results, task = Measurements(), find_task(settings.task).load(data_folder(settings.data))
    rounds, steps = (1, 1) if settings.quick else (settings.rounds, settings.steps)
    precisions = {"float32": False} | ({"bf16": True} if bf16_is_faster(CPU) else {})
    for number in range(rounds):
        for (precision, bf16), (name, build) in itertools.product(precisions.items(), SYSTEMS.items()):
            torch.manual_seed(number)
            system = build(task, bf16, settings.learning_rate)
            step_seconds(system, 1 if settings.quick else 3)  # warm-up
            results.add("step", f"{name}, {precision}", "ms", 1e3 * step_seconds(system, steps))
    best = {name: fastest(results, name, precisions) for name in SYSTEMS}
    if not settings.quick:
        measure_goal(results, settings, task, {name: precision == "bf16" for name, precision in best.items()})
    compare(results, best)
    return results


def measure_goal(results: Measurements, settings: Settings, task: Task, bf16: dict[str, bool]) -> None:
    """Train each system to the goal once per round, from other weights; runs that do not reach it have no value."""
    test = task.target_test.subset(spread(len(task.target_test), 1000))
    for number, (name, build) in itertools.product(range(settings.rounds), SYSTEMS.items()):
        torch.manual_seed(100 + number)
        system = build(task, bf16[name], settings.learning_rate)
        seconds = seconds_to(settings.goal, settings.limit, system, test)
        if seconds is not None:
            results.add(f"seconds to {100 * settings.goal:g} %", name, "s", seconds)


def fastest(results: Measurements, name: str, precisions: Iterable[str]) -> str:
    """Return the precision in which a system's median step is shortest."""
    steps = results.values["step"]
    return min(precisions, key=lambda precision: statistics.median(steps[f"{name}, {precision}"]))


def compare(results: Measurements, best: dict[str, str]) -> None:
    """Divide the steps of the others by ours: in float32, and each in its best precision."""
    steps = results.values["step"]
    for kind, precision in {"float32": dict.fromkeys(SYSTEMS, "float32"), "the best of each": best}.items():
        for name in list(SYSTEMS)[1:]:
            theirs, ours = (steps[f"{one}, {precision[one]}"] for one in (name, OURS))
            results.add_ratio(f"step / our step, {kind}", name, theirs, ours)
        others = zip(*(steps[f"{name}, {precision[name]}"] for name in list(SYSTEMS)[1:]), strict=True)
        results.add_ratio(f"step / our step, {kind}", "the fastest other", [min(one) for one in others], ours)


def bound(name: str, case: str) -> Bound | None:
    """Return what is required of a row."""
    kind = name.removeprefix("step / our step, ")
    return (">=", AT_LEAST[kind]) if kind in AT_LEAST and case == "the fastest other" else None


def declare_torchvision_operators() -> torch.library.Library:
    """Let torchvision, which pytorch-adapt only imports, be imported beside a torch it was not built for.

    The operators exist as long as what is returned.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def main() -> None:
    """Measure, print a table, write the JSON."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin, _operators = results_file.origin(), declare_torchvision_operators()
    try:
        rows = measure(settings).rows(bound)
    except ModuleNotFoundError as error:
        raise SystemExit(f"benchmarks/peers.py: {error}; pip install --no-deps {' '.join(PACKAGES)}") from None
    except MutualignError as error:
        raise SystemExit(f"benchmarks/peers.py: {error}") from None
    print_table(origin["hardware"], rows)
    used = {key: getattr(settings, key) for key in ("task", "rounds", "steps", "learning_rate", "goal", "limit")}
    software = results_file.software() | {name: metadata.version(name) for name in PACKAGES}
    results_file.write(settings.out, origin, rows, versions=software, settings=used)


if __name__ == "__main__":
    main()
