"""A run as work for another process: the text that describes it, and the function that trains it there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.task import Task
from mutualign.errors import MutualignError
from mutualign.io.typed import encode_json
from mutualign.recipes import Recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.loading import load_task
from mutualign.runs.spec import RunSpec
from mutualign.runs.work import Circumstances, StopFile, Work, do_work


@dataclass(frozen=True)
class TaskPlace:
    """Where a worker finds a task: its name and a data folder, or a user's own images."""

    name: str
    data: Path
    own: FolderTask | None
    identity: str  # of the data, as the command that made the work has loaded it

    def load(self, recipe: Recipe) -> Task:
        """Load the task in the form that a recipe trains on; a worker keeps the last one in memory.

        Raises MutualignError if the worker finds other data.
        """
        key = (self, recipe.inputs)
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = load_task(self.name, self.data, recipe, self.own)
        task = _loaded[key]
        if not task.is_data(self.identity):
            raise MutualignError(
                f"{self.name}: this worker finds other data than the command that it works for\n"
                f"  here     {task.identity}\n"
                f"  there    {self.identity}\n"
                "  hint:    give all machines the same files"
            )
        return task


_loaded: dict[tuple[object, ...], Task] = {}


@dataclass(frozen=True)
class Job:
    """A run to train in another process."""

    spec: RunSpec
    path: Path
    task: TaskPlace
    command: str  # for the run's config
    circumstances: Circumstances
    after: tuple[str, ...] = ()  # names of runs that must be done before

    @property
    def name(self) -> str:
        """What people call the run."""
        return str(self.spec)

    @property
    def epochs(self) -> int:
        """How many epochs the run will have."""
        return sum(stage.epochs for stage in self.spec.recipe.stages)

    def work(self) -> Work:
        """Describe the run for an engine."""
        return Work(self.name, encode_json(self), frozenset(self.after))

    def experiment(self, **settings: Any) -> Experiment:
        """Prepare to train the run, or to resume it."""
        run, task = run_of(self.spec, self.path), self.task.load(self.spec.recipe)
        settings |= {"accelerator": self.circumstances.accelerator}
        return experiment_of(self.spec, task, self.path, run, self.command, **settings)


def experiment_of(
    spec: RunSpec, task: Task, path: Path, run: RunFolder | None, command: str | None = None, **settings: Any
) -> Experiment:
    """Prepare to resume a run that has started, or to start it at a path; the rest is as in `Experiment.start`."""
    if run:
        return Experiment(spec.recipe, task, spec.seed, run, **settings)
    return Experiment.start(spec.recipe, task, spec.seed, path, command, **settings)


def train_job(text: str) -> str:
    """Train the run that a text describes, in a worker, and return the outcome; a complete run stays as it is."""
    return do_work(text, Job, _train)


def _train(job: Job, stop: StopFile) -> None:
    run = run_of(job.spec, job.path)
    if run is None or not run.is_complete:
        job.experiment(should_stop=stop).run()


def run_of(spec: RunSpec, path: Path) -> RunFolder | None:
    """Open the folder of a run that has started; None for a folder that a kill left before it was one.

    Raises MutualignError if the folder holds a run with other settings.
    """
    if not path.exists() or RunFolder.is_half_made(path):
        return None
    run = RunFolder.open(path)
    found = run.config().run_spec
    if found.digest != spec.digest:
        differs = "other settings" if (found.task, found.seed) == (spec.task, spec.seed) else "another task or seed"
        raise MutualignError(
            f"{path} holds a run with {differs}: {found.recipe.name} on {found.task}, seed {found.seed}\n"
            "  hint:    choose another --out"
        )
    return run
