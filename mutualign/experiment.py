"""One experiment end to end: task, recipe and seed become a run folder with a result."""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64
from lightning_fabric import Fabric
from torch import Tensor

from mutualign.algorithms import Algorithm
from mutualign.data.own_images import OwnImages
from mutualign.data.tasks import Task, find_task
from mutualign.errors import MutualignError
from mutualign.evidence import audit
from mutualign.evidence.audit import Alarm
from mutualign.evidence.selection import best_epoch
from mutualign.evidence.validators import DEFAULT_VALIDATOR
from mutualign.examination import SCORED, Examiner
from mutualign.recipes import Recipe, parse_recipe
from mutualign.records import summarise
from mutualign.training.batches import steps_per_epoch
from mutualign.training.environment import (
    ONE,
    Processes,
    describe_hardware,
    keep_freed_memory,
    lost_processes_told,
    make_fabric,
    versions,
)
from mutualign.training.loop import Epoch, Hooks, Saving, begin_classifier, build_classifier, train
from mutualign.training.runs import Record, RunFolder


class Display:
    """Where progress is shown. The experiment only tells; this one shows nothing."""

    def begin(self, recipe: Recipe, task: str, seed: int) -> None:
        """An experiment begins, or goes on."""

    def step(self, stage: int, done: int, total: int) -> None:
        """So many of a stage's steps are done."""

    def epoch(self, record: Record) -> None:
        """An epoch is recorded."""

    def alarm(self, alarm: Alarm) -> None:
        """The audit raises an alarm."""

    def damaged(self, fault: str) -> None:
        """A checkpoint was passed over; training goes on from the one before it."""


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
    saving: Saving = field(default_factory=Saving)
    processes: Processes = ONE

    @classmethod
    def start(cls, recipe: Recipe, task: Task, seed: int, path: Path, **settings: Any) -> Experiment:
        """A new experiment in a new run folder, which the first process makes.

        Raises MutualignError, and makes nothing, if the recipe's network cannot take the task's images.
        """
        with torch.random.fork_rng():
            begin_classifier(recipe, task.shape, len(task.class_names))
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        config = {
            "command": command,
            "task": task.name,
            "data": task.identity,
            "seed": seed,
            "images": task.shape._asdict(),
            "class_names": list(task.class_names),
            "recipe": recipe.to_dict(),
        }
        if task.own is not None:
            config |= {"notes": list(task.notes), "own_images": task.own}
        first = settings.get("processes", ONE).first
        return cls(recipe, task, seed, RunFolder.create(path, config) if first else RunFolder(path), **settings)

    @classmethod
    def resume(cls, path: Path, data_folder: Path, **settings: Any) -> Experiment:
        """The experiment of a run folder, to go on with."""
        folder = RunFolder.open(path)
        plan = Plan.of(folder)
        own = folder.config().get("own_images")
        task = find_task(plan.task).load(data_folder) if own is None else OwnImages.of(own).load()
        return cls(plan.recipe, task, plan.seed, folder, **settings)

    def run(self) -> dict[str, Any]:
        """Train from where the folder is to the end. A run that is complete gives its result at once.

        Of several processes the first one writes and shows everything, and gives the result; others give nothing.
        Raises MutualignError if the task's images are not those that the run began with, or a process is lost.
        """
        if result := self.folder.result():
            return result
        keep_freed_memory()
        if not self.processes.first:
            self._train(self._fabric(), Hooks(lambda *step: None, lambda *epoch: None, self.should_stop))
            return {}
        self._refuse_other_data()
        self.display.begin(self.recipe, self.task.name, self.seed)
        fabric = self._fabric()
        software = versions()  # now: by the end, the checkout may have moved on
        self._forget_epochs_after_checkpoint()
        examiner = Examiner(self.task, self.seed, fabric)
        told_apart, images = examiner.domain_accuracy()
        identical = audit.identical_domains(told_apart, images)
        if identical:
            self.display.alarm(identical)
        hooks = Hooks(
            self.display.step, lambda algorithm, epoch: self._end_epoch(algorithm, epoch, examiner), self.should_stop
        )
        self._train(fabric, hooks)
        self._look_back(examiner)
        source_only = self._source_only_beside()
        alarms = [(0, identical)] if identical else []
        for stage in range(len(self.recipe.stages)):
            alarms += [(stage, alarm) for alarm in self._alarms(self._epochs(stage))]
        if source_only and (harm := self._negative_transfer(source_only)):
            self.display.alarm(harm)
            alarms.append((len(self.recipe.stages) - 1, harm))
        result = {
            "recipe": self.recipe.name,
            "task": self.task.name,
            "data": self.task.identity,
            "seed": self.seed,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": self.folder.config()["command"],
            "hardware": describe_hardware(fabric),
            "versions": software,
            "class_names": list(self.task.class_names),
            "source_class_shares": self._prior(),
            "domains_told_apart": round(told_apart, 4),
            "compared_with": source_only.config()["recipe"]["name"] if source_only else None,
            "alarms": [{"stage": stage, **alarm._asdict()} for stage, alarm in alarms],
            "stages": summarise(self.folder.metrics(), DEFAULT_VALIDATOR),
        }
        self.folder.write_result(result)
        return result

    def _fabric(self) -> Fabric:
        return make_fabric(self.recipe.precision, self.accelerator, self.processes)

    def _train(self, fabric: Fabric, hooks: Hooks) -> None:
        source, target, classes = self.task.source_train, self.task.target_train.images, len(self.task.class_names)
        with lost_processes_told(fabric, self.folder.path):
            train(
                self.recipe,
                source,
                target,
                self.task.shape,
                classes,
                self.seed,
                self.folder,
                fabric,
                hooks,
                self.saving,
            )

    def _end_epoch(self, algorithm: Algorithm, epoch: Epoch, examiner: Examiner) -> None:
        """Examine, choose, keep, record, show."""
        stage, epochs = self.recipe.stages[epoch.stage], self._epochs(epoch.stage)
        predicted = self._predictions(epoch)
        record, latest = examiner.epoch(algorithm, epoch, stage.epochs, predicted[-1] if len(predicted) else None)
        record["algorithm"] = stage.algorithm
        weights, info = algorithm.adapted.state_dict(), {key: record[key] for key in ("stage", "epoch", "scores")}
        self.folder.save_tensors(f"stage-{epoch.stage}-last", weights, info)
        if best_epoch([*epochs, record], DEFAULT_VALIDATOR) is record:
            self.folder.save_tensors(f"stage-{epoch.stage}-selected", weights, info)
        predicted = torch.cat([predicted, latest[None]])
        self.folder.save_tensors(f"stage-{epoch.stage}-predictions", {"predicted": predicted.short()}, {})
        self.folder.append_metrics(record)
        self.display.epoch(record)
        told = {alarm.name for alarm in self._alarms(epochs, complete=False)}
        for alarm in self._alarms([*epochs, record], complete=epoch.number == stage.epochs):
            if alarm.name not in told:
                self.display.alarm(alarm)

    def _epochs(self, stage: int) -> list[Record]:
        return [record for record in self.folder.metrics() if record["stage"] == stage]

    def _predictions(self, epoch: Epoch) -> Int64[Tensor, "epochs images"]:
        """The classes that the stage's earlier epochs predicted for the scored target images."""
        name = f"stage-{epoch.stage}-predictions"
        if epoch.number == 1 or not self.folder.has_checkpoint(name):
            return torch.empty(0, min(len(self.task.target_train), SCORED), dtype=torch.int64)
        return self.folder.load_tensors(name)[0]["predicted"][: epoch.number - 1].long()

    def _prior(self) -> list[float]:
        return audit.class_shares(self.task.source_train.labels, len(self.task.class_names))

    def _alarms(self, epochs: list[Record], complete: bool = True) -> list[Alarm]:
        return audit.alarms(epochs, self._prior(), complete)

    def _look_back(self, examiner: Examiner) -> None:
        """Keep what each stage's last and selected classifiers give, and a review of the one that the run is for."""
        outputs: dict[str, Tensor] = {}
        with torch.random.fork_rng():
            classifier = build_classifier(self.recipe, self.task.shape, len(self.task.class_names))
        classifier.to(examiner.fabric.device)
        for stage in range(len(self.recipe.stages)):
            for which in ("last", "selected"):
                weights, info = self.folder.load_tensors(f"stage-{stage}-{which}")
                classifier.load_state_dict(weights)
                outputs = examiner.outputs(classifier)
                self.folder.save_tensors(f"stage-{stage}-{which}-outputs", outputs, info)
        self.folder.save_tensors("review", examiner.review(outputs), {"class_names": self.task.class_names})

    def _source_only_beside(self) -> RunFolder | None:
        """A complete run of source only on the same data with the same seed, in OUT/TASK/*/seed-N beside this one."""
        if not adapts(self.recipe):
            return None
        for path in sorted(self.folder.path.absolute().parents[1].glob(f"*/{self.folder.path.name}/result.json")):
            try:
                other = RunFolder.open(path.parent)
                result, records = other.result() or {}, other.metrics()
            except MutualignError:
                continue  # a neighbour that cannot be read is no reason to lose this run
            same = (result.get("data"), result.get("seed")) == (self.task.identity, self.seed)
            scored = records and all(DEFAULT_VALIDATOR in record["scores"] for record in records)
            if same and scored and all(stage["algorithm"] == "source_only" for stage in result["stages"]):
                return other
        return None

    def _negative_transfer(self, source_only: RunFolder) -> Alarm | None:
        adapted = best_epoch(self._epochs(len(self.recipe.stages) - 1), DEFAULT_VALIDATOR)
        reference = best_epoch(source_only.metrics(), DEFAULT_VALIDATOR)
        return audit.negative_transfer(adapted, reference)

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
        """Records of epochs that are trained again: after a kill before their checkpoint, or if that is damaged."""
        stage, epochs = 0, 0
        if found := self.folder.load_resumable():
            _, info, faults = found
            for fault in faults:
                self.display.damaged(fault)
            stage = info["stage"]
            length = self.recipe.stages[stage]
            epochs = info["steps_done"] // steps_per_epoch(
                len(self.task.source_train), length.batch_size, length.epoch_steps
            )
        self.folder.keep_metrics(lambda record: (record["stage"], record["epoch"]) <= (stage, epochs))


def adapts(recipe: Recipe) -> bool:
    """Whether any stage does more than train on the source."""
    return any(stage.algorithm != "source_only" for stage in recipe.stages)
