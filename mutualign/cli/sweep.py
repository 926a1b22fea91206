"""`sweep`: the command that searches settings of a recipe without target labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from mutualign.cli.options import (
    MOST_SEEDS,
    TASK,
    AcceleratorOption,
    DataOption,
    EngineOption,
    EngineOptions,
    OwnImagesOptions,
    OwnOption,
    SetOption,
    TaskOption,
    flat,
    given_options,
    require_between,
    require_place,
)
from mutualign.cli.stopping import StopSignal
from mutualign.errors import MutualignError, this_command

if TYPE_CHECKING:
    from mutualign.runs.sweeps.sweep import Sweep

MOST_TRIALS = 100_000


@dataclass(frozen=True)
class SweepCommand:
    """Search settings of a recipe by a score that needs no target labels, and write the best as a recipe.

    SPACE.toml names the recipe and, in the table [space], the fields to search:

      recipe = "fast"
      [space.stages.0]
      batch_size = { choices = [64, 128] }
      [space.stages.0.optim]
      lr = { low = 1e-4, high = 1e-2 }

    Add log = true to a range for a log scale, step = 10 for steps. The same command resumes a sweep; started several
    times, also on several machines, it works on one study.

    Example: mutualign sweep space.toml --task digits --trials 40
    """

    space: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SPACE.toml")]
    """The recipe, and which of its fields are searched."""
    task: TaskOption = None
    own_images: OwnOption = field(default_factory=OwnImagesOptions)
    trials: Annotated[int, tyro.conf.arg(metavar="N")] = 40
    """How many trials in all."""
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """How many seeds each trial is trained with; its score is their mean."""
    set: SetOption = ()
    data: DataOption = None
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("sweeps")
    """Where the study goes: OUT/TASK/SPACE."""
    accelerator: AcceleratorOption = "auto"
    parallel: EngineOption = field(default_factory=EngineOptions)

    def main(self, console: Console) -> None:
        """Train the trials, write the best recipe and the report."""
        from mutualign.cli.trials import Trials
        from mutualign.report.html import write_report
        from mutualign.runs.dispatch import dispatch
        from mutualign.runs.engines import open_engine
        from mutualign.runs.sweeps.trial import name_of, train_trial

        require_between("--trials", self.trials, 1, MOST_TRIALS)
        require_between("--seeds", self.seeds, 1, MOST_SEEDS)
        require_place("--out", self.out)
        if self.parallel.engine != "local" and self.parallel.jobs is None:
            raise MutualignError(
                f"a sweep on {self.parallel.engine} needs --jobs\n"
                "  hint:    how many trials at a time; fewer learn more from those before them"
            )
        command = this_command()
        stop = StopSignal()
        with open_engine(self.parallel.engine, self.parallel.jobs or 1, flat(self.parallel.engine_options)) as engine:
            sweep = self._sweep(console, command, engine.threads)
            display = Trials(console, sweep.study, self.trials)
            with display, stop.saving(command):
                stop_file = sweep.circumstances.stop_file
                outcomes = dispatch(engine, train_trial, sweep.works(), stop_file, stop, display)
        for trial in sweep.study.unfinished():
            if (outcome := outcomes.get(name_of(trial.number))) and outcome.state == "lost":
                sweep.study.finish(trial.number, None, error=outcome.message)
        best = sweep.write_best()
        console.print(display.table())
        console.print(f"report: {write_report(sweep.study.folder)}")
        console.print(f"the best recipe: {best}; for example:")
        console.print(f"  {sweep.study.best_command()}")

    def _sweep(self, console: Console, command: str, threads: int) -> Sweep:
        from mutualign.cli.progress import with_notes
        from mutualign.data.datasets.registry import find_task
        from mutualign.data.fetch.data_files import data_folder
        from mutualign.runs.jobs import TaskPlace
        from mutualign.runs.loading import load_for_all, recipe_for
        from mutualign.runs.spec import folder_name
        from mutualign.runs.sweeps.space import load_space
        from mutualign.runs.sweeps.study import Study
        from mutualign.runs.sweeps.sweep import Sweep
        from mutualign.runs.work import Circumstances

        own, data = self.own_images.images(self.task), data_folder(self.data)
        space = load_space(self.space, flat(self.set))
        name = own.name if own else TASK if self.task is None else self.task
        if own is None:
            find_task(name)
        recipe = recipe_for(own, space.recipe, flat(self.set))
        folder = self.out / folder_name(name) / self.space.stem
        common = Circumstances.here(folder, threads, self.accelerator)
        # Loaded once in this process, so that files are fetched and features computed before workers need them.
        identity = with_notes(console, load_for_all(name, data, [recipe, *space.extremes()], own)).identity
        place = TaskPlace(name, data, own, identity)
        study = Study(folder)
        study.keep_options(given_options(self, "task", "own_images", "data", "accelerator"))
        return Sweep(study, space, place, self.seeds, self.trials, command, common)
