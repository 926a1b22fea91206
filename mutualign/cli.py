"""The command line: parse, call, print."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import tyro

from mutualign.data.download import data_folder
from mutualign.data.tasks import find_task
from mutualign.display import Console
from mutualign.errors import MutualignError
from mutualign.experiment import Experiment
from mutualign.recipes import load_recipe
from mutualign.training.loop import Stopped


class StopSignal:
    """Ctrl-C and SIGTERM ask the training to stop after the step; the second one stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def __call__(self) -> bool:
        return self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number


@dataclass(frozen=True)
class Run:
    """Train one recipe on one task, or go on with a run that was stopped."""

    recipe: Annotated[str, tyro.conf.arg(aliases=["-r"])] = "mani"
    """Name of a recipe (source_only, dann, mani) or path of a recipe's .toml file."""
    task: Annotated[str, tyro.conf.arg(aliases=["-t"])] = "digits"
    """What to adapt from and to; `mutualign data list` shows all."""
    seed: int = 0
    """Decides everything that is random."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE")] = ()
    """Change fields of the recipe, for example: --set stages.0.epochs=5 precision=float32"""
    data: Path | None = None
    """Folder of the data files. Default: $MUTUALIGN_DATA, else the user's cache folder."""
    out: Path = Path("runs")
    """Where run folders go: OUT/TASK/RECIPE/seed-SEED."""
    resume: Path | None = None
    """Go on with this run folder, bit for bit as if it had not been stopped; all but --data is then read from it."""
    accelerator: str = "auto"
    """cpu, cuda, mps, or auto."""

    def main(self) -> None:
        stop = StopSignal()
        folder = data_folder(self.data)
        settings = {"accelerator": self.accelerator, "display": Console(), "should_stop": stop}
        if self.resume:
            experiment = Experiment.resume(self.resume, folder, **settings)
        else:
            recipe, task = load_recipe(self.recipe, self.set), find_task(self.task)
            path = self.out / self.task / recipe.name / f"seed-{self.seed}"
            experiment = Experiment.start(recipe, task.load(folder), self.seed, path, **settings)
        try:
            experiment.run()
        except Stopped:
            print(f"stopped and saved; go on with: mutualign run --resume {experiment.folder.path}", file=sys.stderr)
            raise SystemExit(128 + (stop.received or signal.SIGINT)) from None


def main() -> None:
    """Entry point of the `mutualign` command."""
    try:
        tyro.extras.subcommand_cli_from_dict({"run": Run}).main()
    except MutualignError as error:
        print(f"mutualign: {error}", file=sys.stderr)
        raise SystemExit(2) from None


