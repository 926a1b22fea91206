"""One experiment end to end: task, recipe and seed become a run folder with a result."""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric

from mutualign.algorithms import Algorithm
from mutualign.data.augment import Views, strong_views
from mutualign.data.images import UnlabelledImages
from mutualign.data.tasks import Task, find_task
from mutualign.errors import MutualignError
from mutualign.evidence import evaluation, validators
from mutualign.evidence.selection import best_epoch
from mutualign.evidence.validators import DEFAULT_VALIDATOR, Evidence
from mutualign.nn.backbones import Classifier
from mutualign.randomness import derive_seed
from mutualign.recipes import Recipe, parse_recipe
from mutualign.training.batches import steps_per_epoch
from mutualign.training.environment import describe_hardware, keep_freed_memory, make_fabric, versions
from mutualign.training.inference import predict, predict_logits
from mutualign.training.loop import Epoch, Hooks, train
from mutualign.training.runs import Record, RunFolder

SCORED = 2000  # target training images that the label-free scores and the pseudo-label audit are taken on


class Display:
    """Where progress is shown. The experiment only tells; this one shows nothing."""

    def begin(self, recipe: Recipe, task: str, seed: int) -> None:
        """An experiment begins, or goes on."""

    def step(self, stage: int, done: int, total: int) -> None:
        """So many of a stage's steps are done."""

    def epoch(self, record: Record) -> None:
        """An epoch is recorded."""


class Plan(NamedTuple):
    """What a run folder was made for."""

    recipe: Recipe
    task: str
    seed: int

    @classmethod
    def of(cls, folder: RunFolder) -> Plan:
        """The plan in a folder's config. Raises MutualignError that names what is missing there."""
        config, where = folder.config(), f"{folder.path}/config.toml"
        try:
            return cls(parse_recipe(config["recipe"], where), config["task"], config["seed"])
        except KeyError as error:
            raise MutualignError(f"{where}: missing {error}") from error


@dataclass(frozen=True)
class Experiment:
    """A recipe on a task with a seed; `run` trains, selects, evaluates, and gives the result."""

    recipe: Recipe
    task: Task
    seed: int
    folder: RunFolder
    accelerator: str = "auto"
    display: Display = field(default_factory=Display)
    should_stop: Callable[[], bool] = lambda: False

    @classmethod
    def start(cls, recipe: Recipe, task: Task, seed: int, path: Path, **settings: Any) -> Experiment:
        """A new experiment in a new run folder."""
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        config = {
            "command": command,
            "task": task.name,
            "data": task.identity,
            "seed": seed,
            "recipe": recipe.to_dict(),
        }
        return cls(recipe, task, seed, RunFolder.create(path, config), **settings)

    @classmethod
    def resume(cls, path: Path, data_folder: Path, **settings: Any) -> Experiment:
        """The experiment of a run folder, to go on with."""
        folder = RunFolder.open(path)
        plan = Plan.of(folder)
        return cls(plan.recipe, find_task(plan.task).load(data_folder), plan.seed, folder, **settings)

    def run(self) -> dict[str, Any]:
        """Train from where the folder is to the end. A run that is complete gives its result at once.

        Raises MutualignError if the task's images are not those that the run began with.
        """
        if result := self.folder.result():
            return result
        self._refuse_other_data()
        self.display.begin(self.recipe, self.task.name, self.seed)
        keep_freed_memory()
        fabric = make_fabric(self.recipe.precision, self.accelerator)
        software = versions()  # now: by the end, the checkout may have moved on
        self._forget_epochs_after_checkpoint()
        hooks = Hooks(
            self.display.step, lambda algorithm, epoch: self._end_epoch(algorithm, epoch, fabric), self.should_stop
        )
        train(
            self.recipe,
            self.task.source_train,
            self.task.target_train.images,
            self.task.shape,
            len(self.task.class_names),
            self.seed,
            self.folder,
            fabric,
            hooks,
        )
        result = {
            "recipe": self.recipe.name,
            "task": self.task.name,
            "data": self.task.identity,
            "seed": self.seed,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": self.folder.config()["command"],
            "hardware": describe_hardware(fabric),
            "versions": software,
            "stages": summarise(self.folder.metrics(), DEFAULT_VALIDATOR),
        }
        self.folder.write_result(result)
        return result

    def _end_epoch(self, algorithm: Algorithm, epoch: Epoch, fabric: Fabric) -> None:
        """Score without target labels, choose, evaluate, record, show."""
        task, channels, classifier = self.task, self.task.shape.channels, algorithm.adapted
        key = derive_seed(self.seed, epoch.stage, epoch.number, "evaluation")
        rows = _spread(len(task.target_train), SCORED)
        scored = UnlabelledImages(task.target_train.images.take(rows, key))
        evidence = self._evidence(classifier, scored, fabric)
        record: Record = {
            "stage": epoch.stage,
            "algorithm": self.recipe.stages[epoch.stage].algorithm,
            "epoch": epoch.number,
            "train_seconds": round(epoch.train_seconds, 2),
            "means": epoch.means,
            "scores": validators.scores(evidence),
        }
        self._keep_weights(algorithm, record)

        source_logits = predict_logits(classifier, task.source_test.images, channels, fabric, key)
        target_logits = predict_logits(classifier, task.target_test.images, channels, fabric, key)
        record["source_accuracy"] = evaluation.source_accuracy(source_logits, task.source_test)
        record["target_accuracy"] = evaluation.target_accuracy(target_logits, task.target_test)
        if algorithm.teacher is not None:
            labels = predict_logits(algorithm.teacher.model, scored, channels, fabric)
            quality = evaluation.pseudo_label_quality(labels, task.target_train, rows, algorithm.threshold)
            record["pseudo_labels"] = quality._asdict()
        self.folder.append_metrics(record)
        self.display.epoch(record)

    def _evidence(self, classifier: Classifier, scored: UnlabelledImages, fabric: Fabric) -> Evidence:
        """What the validators see: outputs for up to 2,000 images of each kind, each computed once."""
        channels, train, held_out = self.task.shape.channels, self.task.source_train, self.task.source_test
        target = predict(classifier, scored, channels, fabric)
        rows = _spread(len(held_out), SCORED)
        source = predict(classifier, UnlabelledImages(held_out.images.take(rows, 0)), channels, fabric)
        trained = UnlabelledImages(train.images.take(_spread(len(train), SCORED), 0))
        return Evidence(
            target_logits=target.logits,
            target_features=target.features,
            view_logits=predict_logits(classifier, scored, channels, fabric, view=_slightly_changed),
            source_logits=source.logits,
            source_features=source.features,
            source_labels=held_out.labels[rows],
            trained_features=predict(classifier, trained, channels, fabric).features,
        )

    def _keep_weights(self, algorithm: Algorithm, record: Record) -> None:
        """Keep the classifier of this epoch, and as the chosen one if no earlier epoch of the stage scores higher."""
        stage, validator = record["stage"], DEFAULT_VALIDATOR
        earlier = [old["scores"][validator] for old in self.folder.metrics() if old["stage"] == stage]
        weights = algorithm.adapted.state_dict()
        info = {key: record[key] for key in ("stage", "epoch", "scores")}
        self.folder.save_tensors(f"stage-{stage}-last", weights, info)
        if record["scores"][validator] > max(earlier, default=-float("inf")):
            self.folder.save_tensors(f"stage-{stage}-selected", weights, info)

    def _refuse_other_data(self) -> None:
        began_with = self.folder.config().get("data")
        if began_with != self.task.identity:
            raise MutualignError(
                f"{self.folder.path}: the run began with other data\n"
                f"  then     {began_with}\n"
                f"  now      {self.task.identity}\n"
                "  do       give the data folder of then with --data, or begin a new run"
            )

    def _forget_epochs_after_checkpoint(self) -> None:
        """A kill between an epoch's record and its checkpoint leaves a record of an epoch that is trained again."""
        stage, epochs = 0, 0
        if self.folder.has_checkpoint("last"):
            _, info = self.folder.load_tensors("last")
            stage = info["stage"]
            length = self.recipe.stages[stage]
            epochs = info["steps_done"] // steps_per_epoch(
                len(self.task.source_train), length.batch_size, length.epoch_steps
            )
        self.folder.keep_metrics(lambda record: (record["stage"], record["epoch"]) <= (stage, epochs))


def summarise(records: list[Record], validator: str) -> list[dict[str, Any]]:
    """For each stage: its last epoch, the epoch that the validator chooses, and the best by target labels (oracle)."""
    stages = []
    for index in sorted({record["stage"] for record in records}):
        epochs = [record for record in records if record["stage"] == index]
        chosen = {
            "last": epochs[-1],
            f"validator:{validator}": best_epoch(epochs, validator),
            "oracle": max(epochs, key=lambda record: float(record["target_accuracy"])),
        }
        stages.append(
            {
                "algorithm": epochs[-1]["algorithm"],
                "epochs": len(epochs),
                "train_seconds": epochs[-1]["train_seconds"],
                "selections": {
                    name: {key: record[key] for key in ("epoch", "target_accuracy", "source_accuracy")}
                    for name, record in chosen.items()
                },
            }
        )
    return stages


def curves(epochs: Sequence[Record]) -> dict[str, list[float]]:
    """Every number of the epochs' records, as a curve by name."""
    if not epochs:
        return {}
    flat = [
        {"target_accuracy": epoch["target_accuracy"], "source_accuracy": epoch["source_accuracy"]}
        | {f"pseudo_label_{key}": value for key, value in epoch.get("pseudo_labels", {}).items()}
        | epoch["scores"]
        | epoch["means"]
        for epoch in epochs
    ]
    return {name: [values[name] for values in flat] for name in flat[0]}


def _slightly_changed(images: torch.Tensor) -> torch.Tensor:
    """The view whose class should be that of its image: half of a strong view's geometry, a third of its colour."""
    return strong_views(images, Views(geometry=0.5, colour=0.3, solarise=0.0, inversion=0.0))


def _spread(length: int, wanted: int) -> torch.Tensor:
    """Up to `wanted` rows, evenly spread over all."""
    return torch.linspace(0, length - 1, min(wanted, length), dtype=torch.float64).round().long()
