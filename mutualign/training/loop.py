"""The training loop: the only place of `backward` and `optimiser.step`, for every method and every stage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from mutualign.data.types import ImageShape, LabelledImages, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.methods import Method, Update
from mutualign.nn.classifier import Classifier, Outputs
from mutualign.nn.distributed import any_process, average_gradients
from mutualign.nn.randomness import derive_seed, seed_device, separate_draws
from mutualign.recipes import Recipe, Stage
from mutualign.training.batches import Batches
from mutualign.training.callbacks import Callbacks, CheckpointPolicy, CheckpointStore, Epoch
from mutualign.training.diagnosis import FiniteCheck, NotFinite, explain_batch_norm
from mutualign.training.fabric import Fabric
from mutualign.training.inference import predict
from mutualign.training.optim import build_optimisers
from mutualign.training.setup import build_classifier, build_method, initial_classifier, standard_modes


class Stopped(Exception):
    """Training was stopped by a callback and has saved its state."""


class StageTrainer:
    """A stage in training: its method, optimisers, step count and running sums, which a checkpoint contains."""

    def __init__(self, index: int, stage: Stage, seed: int, method: Method, batches: Batches, fabric: Fabric) -> None:
        self.index, self.stage, self.seed = index, stage, seed
        self.method, self.batches, self.fabric = method.to(fabric.device).train(), batches, fabric
        self.optimisers = build_optimisers(stage.optim, method, fabric.device)
        self.check = FiniteCheck(method, fabric, f"stage {index} ({stage.method})")
        self.total_steps = stage.epochs * batches.steps_per_epoch
        self.steps_done = 0
        self.train_seconds = 0.0
        self.sums: dict[str, Tensor] = {}  # of losses and metrics since the start of the epoch

    def step(self) -> None:
        """Run one training step. Raises NotFinite if a loss or a gradient is not finite (see FiniteCheck)."""
        start, step = time.perf_counter(), self.steps_done
        # The same in every process: each draws for the whole batch, and uses the part of its own rows.
        seed_device(derive_seed(self.seed, self.index, "step", step, 0), self.fabric.device)
        batch, done = self.batches[step], step / self.total_steps
        if step % self.batches.steps_per_epoch == 0:
            self.method.begin_epoch(self._look)
        # In mixed precision, images are rounded to bf16 first, as Fabric does: augmentation then moves half the bytes.
        # Not the progress, whose steps would become 1/256.
        inputs = self.fabric._precision.convert_input(batch)
        progress = torch.full((), done, device=self.fabric.device)  # unlike a copy, a fill does not wait for a GPU
        for update in in_autocast(self.fabric, self.method.updates(inputs, progress)):
            optimisers = [self.optimisers[player] for player in update.players]
            self.method.zero_grad()
            self.fabric.backward(update.total)
            average_gradients([weight for optimiser in optimisers for weight in optimiser.parameters])
            self.check(update, batch, self.batches.rows(step), step, [optimiser.torch for optimiser in optimisers])
            for optimiser in optimisers:
                optimiser.set_rate(torch.tensor(done))
                optimiser.torch.step()
            self._add(update)
        self.method.after_step()
        self.steps_done += 1
        self.train_seconds += time.perf_counter() - start

    def _add(self, update: Update) -> None:
        losses = {f"loss_{name}": loss for name, loss in update.losses.items()}
        for name, value in {**losses, **update.metrics}.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=value.device)) + value.detach().float()

    def _wait(self) -> None:
        """Wait for the device, and count that as training: on a GPU, steps return before their work is done.

        Raises NotFinite if a loss or a gradient was not finite.
        """
        start = time.perf_counter()
        self.check.raise_if_any()
        self.train_seconds += time.perf_counter() - start

    def _look(self) -> Outputs:
        """Compute the classifier's outputs on all target training images, for `begin_epoch`."""
        if self.batches.target is None:
            raise MutualignError(f"method {self.stage.method} looks at the target but sets uses_target = False")
        return predict(self.method.classifier, self.batches.target, self.batches.channels, self.fabric, narrow=False)

    def finish_epoch(self) -> Epoch:
        """Return the means of the epoch that ends with the last step, and reset the sums."""
        self._wait()
        means = {name: float(total) / self.batches.steps_per_epoch for name, total in self.sums.items()}
        self.sums = {}
        return Epoch(self.index, self.steps_done // self.batches.steps_per_epoch, means, self.train_seconds)

    def save(self, store: CheckpointStore, keep: int) -> None:
        """Write a checkpoint that `restore` reads; the newest `keep` are kept.

        Raises NotFinite, and keeps the last checkpoint, if a weight is not finite.
        """
        self._wait()
        tensors = {f"method.{name}": value for name, value in self.method.state_dict().items()}
        if broken := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
            raise NotFinite(
                f"{broken[0]} is not finite after step {self.steps_done} of stage {self.index} "
                f"({self.stage.method}); the previous checkpoint is kept\n"
                "  hint:    lower the learning rate, or try precision=float32"
            )
        for player, optimiser in self.optimisers.items():
            tensors |= {f"optimiser.{player}.{name}": value for name, value in optimiser.state().items()}
        tensors |= {f"sums.{name}": value for name, value in self.sums.items()}
        info = {"stage": self.index, "steps_done": self.steps_done, "train_seconds": self.train_seconds}
        store.save_resumable(tensors, info, keep)

    def restore(self, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Restore the state of a checkpoint; training continues from it bit for bit.

        Raises MutualignError if the method has other tensors, as in another version of it.
        """
        parts: dict[str, dict[str, Tensor]] = {"method": {}, "optimiser": {}, "sums": {}}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        try:
            self.method.load_state_dict(parts["method"])
        except RuntimeError as error:  # one line per kind of difference, after a head
            raise MutualignError(
                f"the checkpoint does not fit the method {self.stage.method}: {str(error).splitlines()[-1].strip()}\n"
                "  hint:    resume with the version that wrote it, or start a new run with another --out"
            ) from error
        for player, optimiser in self.optimisers.items():
            prefix = f"{player}."
            own = {key: value for key, value in parts["optimiser"].items() if key.startswith(prefix)}
            optimiser.load({key.removeprefix(prefix): value for key, value in own.items()})
        self.sums = {name: value.to(self.fabric.device) for name, value in parts["sums"].items()}
        self.steps_done, self.train_seconds = info["steps_done"], info["train_seconds"]


def in_autocast(fabric: Fabric, updates: Iterable[Update]) -> Iterator[Update]:
    """Iterate with autocast enabled while the method computes, and disabled while the loop does."""
    iterator = iter(updates)
    while True:
        with fabric.autocast():
            update = next(iterator, None)
        if update is None:
            return
        yield update


def train(
    recipe: Recipe,
    source: LabelledImages,
    target: UnlabelledImages,
    shape: ImageShape,
    classes: int,
    seed: int,
    store: CheckpointStore,
    fabric: Fabric,
    callbacks: Callbacks,
    policy: CheckpointPolicy | None = None,
) -> Classifier:
    """Train a recipe's stages from the start, or from the store's last checkpoint, and return the classifier.

    A checkpoint is written after each epoch, when `policy.every` seconds have passed, and before `Stopped` is raised.
    torch's global generator and modes are restored. Raises NotFinite if training diverges.
    """
    source, target = source.to(fabric.device), target.to(fabric.device)
    with fabric.rank_zero_first():  # the first process renames damaged checkpoints
        checkpoint = store.load_resumable()
    first = checkpoint.info["stage"] if checkpoint else 0
    with separate_draws(fabric.device, derive_seed(seed, "classifier")), standard_modes():
        classifier = (build_classifier if checkpoint else initial_classifier)(recipe, shape, classes)
        previous: Method | None = None
        for index, stage in enumerate(recipe.stages):
            seed_device(derive_seed(seed, index, "algorithm"), fabric.device)
            method = build_method(stage, classifier)
            if previous is not None:
                method.warm_start_from(previous)
            previous = method
            if index < first:
                continue  # finished before the checkpoint, which contains its result
            used_source = source if method.uses_source else None
            used_target = target if method.uses_target else None
            batches = Batches(
                used_source, used_target, shape.channels, stage.batch_size, seed, index, stage.epoch_steps
            )
            trainer = StageTrainer(index, stage, seed, method, batches, fabric)
            if checkpoint and index == first:
                trainer.restore(checkpoint.tensors, checkpoint.info)
            _train_stage(trainer, store, callbacks, policy or CheckpointPolicy())
    return classifier


def _train_stage(trainer: StageTrainer, store: CheckpointStore, callbacks: Callbacks, policy: CheckpointPolicy) -> None:
    """Train a stage to its end. Of several processes, the first one calls back and saves; all stop together."""
    first, saved_at = trainer.fabric.is_global_zero, time.monotonic()
    while trainer.steps_done < trainer.total_steps:
        with explain_batch_norm(f"stage {trainer.index} ({trainer.stage.method})", trainer.stage.batch_size):
            trainer.step()
        ends_epoch = trainer.steps_done % trainer.batches.steps_per_epoch == 0
        epoch = trainer.finish_epoch() if ends_epoch else None
        if first:
            callbacks.on_step(trainer.index, trainer.steps_done, trainer.total_steps)
            if epoch:
                callbacks.on_epoch(trainer.method, epoch)
        stop = any_process(callbacks.should_stop())
        if first and (epoch or stop or time.monotonic() - saved_at > policy.every):
            trainer.save(store, policy.keep)
            saved_at = time.monotonic()
        if stop:
            raise Stopped
