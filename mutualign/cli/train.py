"""`run`: the command that trains one recipe, or resumes a run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from mutualign.cli.options import (
    ALARMED,
    LARGEST_SEED,
    MOST_CHECKPOINTS,
    MOST_PROCESSES,
    RECIPES,
    TASK,
    AcceleratorOption,
    BackboneOption,
    DataOption,
    FinetuneOption,
    OwnImagesOptions,
    OwnOption,
    SetOption,
    StrictOption,
    TaskOption,
    WeightsOption,
    flat,
    given_options,
    require_between,
    require_place,
)
from mutualign.cli.stopping import StopSignal
from mutualign.errors import MutualignError
from mutualign.io.plugins import mutualign_command, resume_command

if TYPE_CHECKING:
    from mutualign.runs.experiment import Experiment
    from mutualign.training.distributed import Processes

# What may differ when a run resumes; everything else is read from its folder.
APPLY_ON_RESUME = ("data", "own_images", "accelerator", "devices", "nodes", "save_every", "keep", "strict")


@dataclass(frozen=True)
class Run:
    """Train one recipe on a task or on your own images, or resume a run that was stopped.

    Writes a run folder, OUT/TASK/RECIPE/seed-SEED, and prints the result and the commands that use it.

    Examples: mutualign run --source photos/labelled --target photos/unlabelled
              mutualign run --recipe fast --task digits
              mutualign run --resume runs/digits/fast/seed-0
    """

    recipe: Annotated[
        str | None,
        tyro.conf.arg(
            aliases=["-r"],
            metavar="NAME",
            help=f"How to train: the name of a recipe, or the path of a .toml file. {RECIPES}",
            help_behavior_hint="(default: best; photos for images of your own of 48 pixels and more, and vectors)",
        ),
    ] = None
    task: TaskOption = None
    own_images: OwnOption = field(default_factory=OwnImagesOptions)
    backbone: BackboneOption = None
    weights: WeightsOption = None
    finetune: FinetuneOption = False
    seed: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="N",
            help="Decides everything that is random: the same seed gives the same run.",
            help_behavior_hint="(default: 0)",
        ),
    ] = None
    set: SetOption = ()
    data: DataOption = None
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FOLDER",
            help="Where run folders go.",
            help_behavior_hint="(default: runs)",
        ),
    ] = None
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Resume this run, bit for bit as if it had not been stopped. Recipe, task and seed are read from its folder. If
    the images have moved, also give --data, or --source and --target."""
    accelerator: AcceleratorOption = "auto"
    devices: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Number of processes that share each batch, one per GPU; on a CPU they save no time. The result is the same, up to
    rounding. Default: 1, or as many as torchrun has started."""
    nodes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Number of computers that train together, with --devices processes each; start this command on all of them.
    Default: 1, or as many as torchrun has started it on."""
    save_every: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 60.0
    """Seconds between checkpoints to resume from; one is also saved after each epoch."""
    keep: Annotated[int, tyro.conf.arg(metavar="N")] = 2
    """How many checkpoints to keep; if the newest is damaged, the one before it is used."""
    strict: StrictOption = False

    def main(self, console: Console) -> None:
        """Train, and print the result."""
        if self.devices or self.nodes or "LOCAL_WORLD_SIZE" in os.environ:
            # Before torch is imported: its warnings about lost connections come with pages of C++ frames.
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        from mutualign.cli.progress import ProgressDisplay
        from mutualign.cli.show import show_result
        from mutualign.runs.folder import RunFolder
        from mutualign.training.callbacks import CheckpointPolicy

        require_between("--save-every", self.save_every, 0, 1e9)
        require_between("--keep", self.keep, 1, MOST_CHECKPOINTS)
        processes = self._processes()
        if not processes.first:
            console = Console(quiet=True)
        stop, display = StopSignal(processes.first), ProgressDisplay(console)
        settings: dict[str, Any] = {
            "accelerator": self.accelerator,
            "observer": display,
            "should_stop": stop,
            "policy": CheckpointPolicy(self.save_every, self.keep),
            "processes": processes,
        }
        experiment = self._resumed(self.resume, **settings) if self.resume else self._started(console, **settings)
        path = experiment.folder.path
        # A new run keeps where its images are; where they have moved to is kept by nothing but the command.
        apply = APPLY_ON_RESUME if self.resume else [name for name in APPLY_ON_RESUME if name != "own_images"]
        with display, stop.saving(resume_command(path, *given_options(self, *apply))):
            result = experiment.run()
        if not processes.first:
            return
        show_result(console, RunFolder.open(path), display.explained)
        for line in next_commands(path):
            console.print(line)
        if self.strict and result and result.alarms:
            raise SystemExit(ALARMED)

    def _started(self, console: Console, **settings: Any) -> Experiment:
        """Prepare a new run."""
        from mutualign.data.datasets import find_task
        from mutualign.data.fetch.data_files import data_folder
        from mutualign.runs.experiment import Experiment
        from mutualign.runs.folder import RunFolder
        from mutualign.runs.loading import default_recipe, load_task, photo_hint, recipe_for
        from mutualign.runs.network_choice import NetworkChoice
        from mutualign.runs.spec import RunSpec

        seed, name, out = self.seed or 0, TASK if self.task is None else self.task, self.out or Path("runs")
        require_between("--seed", seed, 0, LARGEST_SEED)
        require_place("--out", out)
        folder, own = data_folder(self.data), self.own_images.images(self.task)
        if own is None:
            find_task(name)
        chosen = NetworkChoice(self.backbone, self.weights, self.finetune)
        recipe = recipe_for(own, default_recipe(own) if self.recipe is None else self.recipe, flat(self.set), chosen)
        load = partial(load_task, name, folder, recipe, own)
        name = name if own is None else own.name
        path = RunSpec(recipe, name, seed).path(out)
        if settings["processes"].first:
            RunFolder.refuse_existing(path)
        task = load()
        for note in (*task.notes, *photo_hint(recipe, task)):
            console.print(note)
        return Experiment.start(recipe, task, seed, path, **settings)

    def _resumed(self, run: Path, **settings: Any) -> Experiment:
        """Prepare to resume a run. Raises MutualignError that names the options that cannot change it."""
        from mutualign.runs.experiment import Experiment

        own = self.own_images
        given = {one.name for one in fields(self) if getattr(self, one.name) != one.default}
        given -= {"resume", *APPLY_ON_RESUME}
        given |= {
            name for name in ("image_size", "on_bad_image") if getattr(own, name) != getattr(OwnImagesOptions, name)
        }
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given))
            raise MutualignError(
                f"--resume {run}: the run has its own recipe, task and seed; cannot be changed: {options}\n"
                "  hint:    leave these options out, or start a new run without --resume"
            )
        return Experiment.resume(run, self.data, moved=own.places(), **settings)

    def _processes(self) -> Processes:
        """Return how many processes train together.

        Raises MutualignError if torchrun has started others, or if an environment variable of theirs is wrong.
        """
        from mutualign.training.distributed import ONE, Processes

        started = Processes.started()
        asked = Processes(
            started.devices if self.devices is None else self.devices,
            started.nodes if self.nodes is None else self.nodes,
        )
        require_between("--devices", asked.devices, 1, MOST_PROCESSES)
        require_between("--nodes", asked.nodes, 1, MOST_PROCESSES)
        if ONE != started != asked:
            raise MutualignError(
                f"torchrun has started {started.devices} processes on each of {started.nodes} node(s), but "
                f"{asked.devices} on {asked.nodes} are asked for\n  hint:    leave --devices and --nodes out"
            )
        asked.check()
        return asked


def next_commands(run: Path) -> list[str]:
    """Return the commands that use a finished run."""
    predict = mutualign_command("predict", run, "IMAGES", "--out", "predictions.csv")
    others = [mutualign_command(command, run) for command in ("report", "show", "demo", "export")]
    return [f"next:    {predict}", *(f"         {command}" for command in others)]
