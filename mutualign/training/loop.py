"""The training loop: the only place of `backward` and `optimizer.step`, for every algorithm and every stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from mutualign.algorithms import ALGORITHMS, Algorithm
from mutualign.data.images import ImageShape, LabelledImages, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.nn.backbones import Classifier, build_backbone
from mutualign.nn.pretrained import load_backbone_weights
from mutualign.nn.schedules import LEARNING_RATES
from mutualign.randomness import derive_seed
from mutualign.recipes import Recipe, Stage
from mutualign.training.batches import Batches
from mutualign.training.diagnosis import diagnose
from mutualign.training.runs import RunFolder


@dataclass(frozen=True)
class Epoch:
    """What the loop tells of an epoch that it has finished."""

    stage: int  # from 0
    number: int  # within the stage, from 1
    means: dict[str, float]  # of losses and metrics over the epoch's steps
    train_seconds: float  # of the stage so far: steps and their data, without evaluation


@dataclass(frozen=True)
class Hooks:
    """What the experiment hands in: all that the loop calls besides training."""

    on_step: Callable[[int, int, int], None]  # stage, steps done, steps in all
    on_epoch: Callable[[Algorithm, Epoch], None]  # before the epoch's checkpoint is written
    should_stop: Callable[[], bool]  # asked after each step; if so, the loop saves and raises Stopped


@dataclass(frozen=True)
class Saving:
    """When checkpoints that a resume begins at are written, and how many of the newest are kept."""

    every: float = 60.0  # seconds; one is also written after each epoch
    keep: int = 2

    def __post_init__(self) -> None:
        if self.keep < 1 or not self.every >= 0:
            raise MutualignError(
                f"checkpoints: 1 or more are kept, every 0 or more seconds; got {self.keep} and {self.every:g}"
            )


class Stopped(Exception):
    """Training was asked to stop and has saved where it was."""


class NotFinite(MutualignError):
    """A loss, a gradient or a weight is NaN or infinite; the last checkpoint is intact."""


class StageTrainer:
    """One stage in training: an algorithm, its optimiser and its place in the data; all that a resume restores."""

    def __init__(
        self, index: int, stage: Stage, seed: int, algorithm: Algorithm, batches: Batches, fabric: Fabric
    ) -> None:
        self.index, self.stage, self.seed = index, stage, seed
        self.algorithm, self.batches, self.fabric = algorithm.to(fabric.device).train(), batches, fabric
        parameters = [parameter for parameter in algorithm.parameters() if parameter.requires_grad]
        fused = fabric.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(parameters, lr=stage.learning_rate, fused=fused)
        self._forward, self._optimizer = fabric.setup(self.algorithm, self.optimizer)
        self.rate = LEARNING_RATES[stage.schedule]
        self.total_steps = stage.epochs * batches.steps_per_epoch
        self.steps_done = 0
        self.train_seconds = 0.0
        self.sums: dict[str, Tensor] = {}  # of losses and metrics since the epoch began

    def step(self) -> None:
        """One optimiser step. Raises NotFinite before the weights are touched."""
        start = time.perf_counter()
        # The same in every process: what is drawn for a part of a batch is a part of what is drawn for all of it.
        torch.manual_seed(derive_seed(self.seed, self.index, "step", self.steps_done, 0))
        batch = self.batches[self.steps_done]
        progress = torch.tensor(self.steps_done / self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.learning_rate * self.rate(progress).item()
        losses, metrics = self._forward(batch, progress.to(self.fabric.device))
        total = torch.stack(list(losses.values())).sum()
        self._optimizer.zero_grad()
        self.fabric.backward(total)
        if not self._finite(total):
            where = f"stage {self.index} ({self.stage.algorithm}), step {self.steps_done}"
            rows = self.batches.rows(self.steps_done)
            raise NotFinite(diagnose(self.algorithm, losses, batch, rows, where, self.fabric))
        self._optimizer.step()
        self.algorithm.after_step()
        for name, value in {**{f"loss_{name}": loss for name, loss in losses.items()}, **metrics}.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=value.device)) + value.detach().float()
        self.steps_done += 1
        self.train_seconds += time.perf_counter() - start

    def _finite(self, total: Float[Tensor, ""]) -> bool:
        """Whether the loss and every gradient are. Their norm tells; only where it overflows each is looked at."""
        parameters = self.optimizer.param_groups[0]["params"]
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        if torch.isfinite(total.float() + torch.nn.utils.get_total_norm(gradients)):
            return True
        return bool(total.isfinite()) and all(bool(gradient.isfinite().all()) for gradient in gradients)

    def agreed(self, stop: bool) -> bool:
        """Whether any process wants to stop."""
        if self.fabric.world_size == 1:
            return stop
        return bool(self.fabric.all_reduce(torch.tensor(float(stop), device=self.fabric.device), reduce_op="sum"))

    def finish_epoch(self) -> Epoch:
        """The epoch that ends with the step just done; its sums begin anew."""
        means = {name: float(total) / self.batches.steps_per_epoch for name, total in self.sums.items()}
        self.sums = {}
        return Epoch(self.index, self.steps_done // self.batches.steps_per_epoch, means, self.train_seconds)

    def save(self, run: RunFolder, keep: int) -> None:
        """Write the checkpoint that `restore` continues from, bit for bit; of the newest, `keep` are kept.

        Raises NotFinite, and leaves the last checkpoint as it was, if a weight is not finite.
        """
        tensors = {f"algorithm.{name}": value for name, value in self.algorithm.state_dict().items()}
        if broken := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
            raise NotFinite(
                f"{broken[0]} is not finite after step {self.steps_done} of stage {self.index} "
                f"({self.stage.algorithm}); the checkpoint before it is kept\n"
                "  do       lower the learning rate, or try precision=float32"
            )
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        tensors |= {f"sums.{name}": value for name, value in self.sums.items()}
        info = {"stage": self.index, "steps_done": self.steps_done, "train_seconds": self.train_seconds}
        run.save_resumable(tensors, info, keep)

    def restore(self, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Go back to where a checkpoint was written."""
        parts: dict[str, dict[str, Tensor]] = {"algorithm": {}, "optimizer": {}, "sums": {}}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        self.algorithm.load_state_dict(parts["algorithm"])
        parameters = self.optimizer.param_groups[0]["params"]
        state: dict[int, dict[str, Tensor]] = {}
        for key, saved in parts["optimizer"].items():
            number, _, name = key.partition(".")
            # Fused Adam walks through memory as it lies: moments must lie as their weights do, channels-last or not.
            value = saved if saved.dim() == 0 else torch.empty_like(parameters[int(number)]).copy_(saved)
            state.setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.sums = {name: value.to(self.fabric.device) for name, value in parts["sums"].items()}
        self.steps_done, self.train_seconds = info["steps_done"], info["train_seconds"]


def build_classifier(recipe: Recipe, shape: ImageShape, classes: int) -> Classifier:
    """The recipe's classifier for images of a shape, initialised from torch's global generator.

    `backbone_weights` is not read: what came of it is in the run's checkpoints.
    """
    return Classifier(build_backbone(recipe.backbone, *shape), classes)


def begin_classifier(recipe: Recipe, shape: ImageShape, classes: int) -> Classifier:
    """The classifier that training begins with. Raises MutualignError if its network cannot take the images."""
    classifier = build_classifier(recipe, shape, classes)
    if recipe.backbone_weights:
        load_backbone_weights(classifier.features, Path(recipe.backbone_weights))
    return classifier


def build_algorithm(stage: Stage, classifier: Classifier) -> Algorithm:
    """A stage's algorithm over a classifier; what it adds is initialised from torch's global generator."""
    _, build = ALGORITHMS[stage.algorithm]
    return build(classifier, stage.options)


def train(
    recipe: Recipe,
    source: LabelledImages,
    target: UnlabelledImages,
    shape: ImageShape,
    classes: int,
    seed: int,
    run: RunFolder,
    fabric: Fabric,
    hooks: Hooks,
    saving: Saving | None = None,
) -> Classifier:
    """Train a recipe's stages from the start, or from the run's last checkpoint, to the end; gives the classifier.

    A checkpoint is written after each epoch, whenever it is time, and before `Stopped` is raised. torch's global
    generator is left as it was found.
    """
    source, target = source.to(fabric.device), target.to(fabric.device)
    with fabric.rank_zero_first():  # which sets damaged checkpoints aside
        tensors, info, _ = run.load_resumable() or ({}, {"stage": 0}, [])
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "classifier"))
        classifier = (build_classifier if tensors else begin_classifier)(recipe, shape, classes)
        previous: Algorithm | None = None
        for index, stage in enumerate(recipe.stages):
            torch.manual_seed(derive_seed(seed, index, "algorithm"))
            algorithm = build_algorithm(stage, classifier)
            if previous is not None:
                algorithm.inherit(previous)
            previous = algorithm
            if index < info["stage"]:
                continue  # this stage is done; the checkpoint holds what came of it
            used = target if algorithm.uses_target else None
            batches = Batches(source, used, shape.channels, stage.batch_size, seed, index, stage.epoch_steps)
            trainer = StageTrainer(index, stage, seed, algorithm, batches, fabric)
            if tensors and index == info["stage"]:
                trainer.restore(tensors, info)
            _train_stage(trainer, run, hooks, saving or Saving())
    return classifier


def _train_stage(trainer: StageTrainer, run: RunFolder, hooks: Hooks, saving: Saving) -> None:
    """Of several processes the first one tells, evaluates and saves; all stop after the same step."""
    first, saved_at = trainer.fabric.is_global_zero, time.monotonic()
    while trainer.steps_done < trainer.total_steps:
        trainer.step()
        ends_epoch = trainer.steps_done % trainer.batches.steps_per_epoch == 0
        epoch = trainer.finish_epoch() if ends_epoch else None
        if first:
            hooks.on_step(trainer.index, trainer.steps_done, trainer.total_steps)
            if epoch:
                hooks.on_epoch(trainer.algorithm, epoch)
        stop = trainer.agreed(hooks.should_stop())
        if first and (epoch or stop or time.monotonic() - saved_at > saving.every):
            trainer.save(run, saving.keep)
            saved_at = time.monotonic()
        if stop:
            raise Stopped
