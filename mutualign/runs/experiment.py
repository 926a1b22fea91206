"""One run end to end: task, recipe and seed become a run folder with a result."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mutualign.data.fetch.data_files import data_folder
from mutualign.data.task import Task
from mutualign.errors import MutualignError, this_command
from mutualign.evaluation.alarms import verdict_alarms
from mutualign.evaluation.measure import Evaluator
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.io.plugins import loaded_plugins, resume_command
from mutualign.methods import METHODS
from mutualign.nn.randomness import separate_draws
from mutualign.recipes import Recipe
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result, StageAlarm, summarise
from mutualign.runs.loading import PHOTO_SIDE, load_task
from mutualign.runs.lock import locked
from mutualign.runs.observer import Observer
from mutualign.runs.recorder import Recorder
from mutualign.runs.verdict import verdict_of
from mutualign.training.batches import steps_per_epoch
from mutualign.training.callbacks import Callbacks, CheckpointPolicy
from mutualign.training.distributed import ONE, Processes, make_fabric, report_lost_processes
from mutualign.training.duration import estimate_seconds
from mutualign.training.fabric import Fabric
from mutualign.training.hardware import describe_hardware, keep_freed_memory, versions
from mutualign.training.loop import Stopped, train
from mutualign.training.setup import check_network, initial_classifier


def never() -> bool:
    """Never stop."""
    return False


@dataclass(frozen=True)
class Experiment:
    """A recipe on a task with a seed; `run` trains, selects and evaluates, and returns the result.

    An experiment can be pickled if its observer and `should_stop` can.
    """

    recipe: Recipe
    task: Task
    seed: int
    folder: RunFolder
    accelerator: str = "auto"
    observer: Observer = field(default_factory=Observer)
    should_stop: Callable[[], bool] = never
    policy: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    processes: Processes = ONE

    @classmethod
    def start(
        cls, recipe: Recipe, task: Task, seed: int, path: Path, command: str | None = None, **settings: Any
    ) -> Experiment:
        """Prepare a new run in a new run folder, which the first process makes.

        `command` is what the user typed, for the config; by default, that of this process.
        Raises MutualignError, and makes nothing, if the recipe's network cannot take the task's images, or if a method
        does nothing in it.
        """
        with separate_draws():
            check_network(recipe, initial_classifier(recipe, task.shape, len(task.class_names)))
        config: dict[str, Any] = {
            "command": command or this_command(),
            "task": task.name,
            "data": task.identity,
            "seed": seed,
            "images": task.shape._asdict(),
            "class_names": list(task.class_names),
            "recipe": recipe.to_dict(),
        }
        if plugins := loaded_plugins():
            config["plugins"] = plugins
        if task.folders is not None:
            config |= {"notes": list(task.notes), "own_images": task.folders.to_dict()}
        if task.data_folder not in (None, data_folder()):
            config["data_folder"] = str(task.data_folder.absolute())
        first = settings.get("processes", ONE).first
        return cls(recipe, task, seed, RunFolder.create(path, config) if first else RunFolder(path), **settings)

    @classmethod
    def resume(
        cls, path: Path, data: Path | None = None, moved: Mapping[str, Path] | None = None, **settings: Any
    ) -> Experiment:
        """Prepare to resume the run of a folder.

        `data` is the data folder, if it is another one now; `moved` has the new places of the run's own images by part,
        such as `source`. Raises MutualignError if images are no longer where they were.
        """
        folder = RunFolder.open(path)
        config = folder.config()
        if config.own_images is None:
            if moved:
                raise MutualignError(f"{path}: a run on the task {config.task}, not on images of your own")
            task = load_task(config.task, config.find_data(data), config.recipe)
        else:
            new: dict[str, Any] = dict(moved or {})
            places = replace(config.own_images, **new)
            if absent := [place for place in (places.source, places.target) if not place.exists()]:
                command = resume_command(path, "--source", "NEW", "--target", "NEW")
                raise MutualignError(f"{absent[0]}: the images of {path} are not there\n  hint:    {command}")
            task = replace(places.load(), name=config.task)
        return cls(config.recipe, task, config.seed, folder, **settings)

    def run(self) -> Result | None:
        """Train from where the folder is to the end, and return the result; a complete run returns it at once.

        With several processes the first one writes and shows everything and returns the result; the others return
        None. Raises MutualignError if the task's images are not those that the run started with, if another program
        trains the run, and if a process is lost.
        """
        if not self.processes.first:
            if self.folder.result() is None:
                keep_freed_memory()
                self._train(self._fabric(), Callbacks(should_stop=self.should_stop))
            return None
        self._refuse_other_data()
        if result := self.folder.result():
            return result
        with locked(self.folder.path), self.folder.recording_failure(except_for=Stopped):
            return self.folder.result() or self._run()  # the last owner of the lock may have completed it

    def _run(self) -> Result:
        keep_freed_memory()
        self.folder.upgrade()
        self.observer.begin(self.recipe, self.task.name, self.seed)
        fabric = self._fabric()
        software = versions()  # now, because the checkout may change during the run
        self._forget_epochs_after_checkpoint()
        self._say_how_long(fabric)
        evaluator = Evaluator(self.task, self.seed, fabric)
        recorder = Recorder(self.recipe, self.task, self.folder, evaluator, self.observer)
        self._train(fabric, Callbacks(self.observer.step, recorder.end_epoch, self.should_stop))
        recorder.keep_outputs()
        stages = summarise(self.folder.metrics(), DEFAULT_VALIDATOR)
        verdict = verdict_of(self.folder, stages[-1].selected.target_accuracy)
        alarms = [(0, alarm) for alarm in recorder.alarms_about_data()]
        for stage in range(len(self.recipe.stages)):
            alarms += [(stage, alarm) for alarm in recorder.alarms(stage)]
        for alarm in verdict_alarms(verdict, stages[-1].selected.source_accuracy):
            self.observer.alarm(alarm)
            alarms.append((len(self.recipe.stages) - 1, alarm))
        config = self.folder.config()
        result = Result(
            recipe=self.recipe.name,
            task=self.task.name,
            data=config.data,
            seed=self.seed,
            command=config.command,
            hardware=describe_hardware(fabric),
            versions=software,
            stages=stages,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            class_names=list(self.task.class_names),
            source_class_shares=list(recorder.source_classes.shares),
            domain_accuracy=round(evaluator.domain_accuracy()[0], 4),
            compared_with=verdict.compared_with,
            alarms=[StageAlarm(alarm.name, alarm.seen, alarm.cause, stage) for stage, alarm in alarms],
            verdict=verdict,
        )
        self.folder.write_result(result)
        return result

    def _fabric(self) -> Fabric:
        return make_fabric(self.recipe.precision, self.accelerator, self.processes, self.should_stop)

    def _say_how_long(self, fabric: Fabric) -> None:
        """Report how long a new run will take, if it trains on photos on a CPU: that may be hours."""
        task, is_new = self.task, not self.folder.metrics()
        if is_new and fabric.device.type == "cpu" and min(task.shape.height, task.shape.width) >= PHOTO_SIDE:
            seconds = estimate_seconds(
                self.recipe, task.source_train, task.target_train.images, task.shape, len(task.class_names), fabric
            )
            self.observer.expects(seconds)

    def _train(self, fabric: Fabric, callbacks: Callbacks) -> None:
        task, store = self.task, self.folder.checkpoints
        with report_lost_processes(fabric, self.folder.path):
            train(
                self.recipe,
                task.source_train,
                task.target_train.images,
                task.shape,
                len(task.class_names),
                self.seed,
                store,
                fabric,
                callbacks,
                self.policy,
            )

    def _refuse_other_data(self) -> None:
        started_with = self.folder.config().data
        if not self.task.is_data(started_with):
            raise MutualignError(
                f"{self.folder.path}: the run was started with other data\n"
                f"  then     {started_with}\n"
                f"  now      {self.task.identity}\n"
                "  hint:    give the images of then again, or start a new run with another --out"
            )

    def _forget_epochs_after_checkpoint(self) -> None:
        """Drop records of epochs after the checkpoint that training resumes from; they are trained again.

        Raises MutualignError if the checkpoint is beyond the recipe, or a record of an epoch before it is missing.
        """
        stage, epochs = 0, 0
        if found := self.folder.checkpoints.load_resumable():
            for fault in found.damaged:
                self.observer.damaged(fault)
            stage = found.info["stage"]
            if stage >= len(self.recipe.stages):
                raise MutualignError(f"{self.folder.path}: its checkpoint is of stage {stage}, which the recipe lacks")
            settings, task = self.recipe.stages[stage], self.task
            images = len(task.source_train if METHODS[settings.method].method.uses_source else task.target_train)
            epochs = found.info["steps_done"] // steps_per_epoch(images, settings.batch_size, settings.epoch_steps)
        kept = self.folder.keep_metrics(lambda record: (record.stage, record.epoch) <= (stage, epochs))
        self.folder.require_epochs(kept, [*(one.epochs for one in self.recipe.stages[:stage]), epochs])
