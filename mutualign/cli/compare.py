"""`compare`: the command that trains several recipes with several seeds, and prints a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from mutualign.cli.options import (
    ALARMED,
    MISSING,
    MOST_SEEDS,
    RECIPES,
    TASK,
    AcceleratorOption,
    BackboneOption,
    DataOption,
    EngineOption,
    EngineOptions,
    FinetuneOption,
    ForceOption,
    OwnImagesOptions,
    OwnOption,
    RepeatableNames,
    SetOption,
    StrictOption,
    WeightsOption,
    flat,
    require_between,
    require_place,
)
from mutualign.cli.stopping import StopSignal
from mutualign.errors import described, this_command
from mutualign.io.plugins import mutualign_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mutualign.data.task import Task
    from mutualign.runs.comparison import Comparison
    from mutualign.runs.jobs import TaskPlace
    from mutualign.runs.rows import Row
    from mutualign.runs.spec import RunSpec


RECIPES_BY_DEFAULT = "source_only,dann,mani,fast,best"
PHOTO_RECIPES = "photos_source_only,photos_dann,photos_mani,photos"


@dataclass(frozen=True)
class Compare:
    """Train recipes on tasks with several seeds, and print means, 95 % intervals and gains paired by seed.

    Finished runs are skipped, so the same command resumes a comparison that was stopped.

    Examples: mutualign compare --recipes source_only,dann,fast --task digits --seeds 3
              mutualign compare --source photos/labelled --target photos/unlabelled
              mutualign compare --recipes all --task digits --jobs 2
    """

    recipes: Annotated[
        RepeatableNames,
        tyro.conf.arg(
            aliases=["-r"],
            metavar="NAMES",
            help="Recipes by name or path, separated by commas. `all` is every method in the conditions of the recipe "
            f"equal (equal_photos for photos), all:NAME in those of another one. {RECIPES}",
            help_behavior_hint=f"(default: {RECIPES_BY_DEFAULT}; for photos: {PHOTO_RECIPES})",
        ),
    ] = ()
    task: Annotated[
        RepeatableNames,
        tyro.conf.arg(
            aliases=["--tasks", "-t"],
            metavar="NAMES",
            help="Tasks, separated by commas; `mutualign data list` shows all. NAME@6000 trains on 6,000 images of "
            "each domain; folder:ROOT:all is every pair of domains in ROOT/DOMAIN/CLASS/*.jpg.",
            help_behavior_hint=f"(default: {TASK})",
        ),
    ] = ()
    own_images: OwnOption = field(default_factory=OwnImagesOptions)
    backbone: BackboneOption = None
    weights: WeightsOption = None
    finetune: FinetuneOption = False
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    """How many seeds each recipe is trained with: 0, 1, 2, ..."""
    set: SetOption = ()
    data: DataOption = None
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs")
    """Where run folders go: OUT/TASK/RECIPE/seed-SEED."""
    save: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write the results to this JSON file as they come: one row per run and way of choosing the epoch."""
    baselines: bool = True
    """Also train each network for as many epochs on the source alone: the fair baseline, for verdicts and gains."""
    force: ForceOption = False
    accelerator: AcceleratorOption = "auto"
    parallel: EngineOption = field(default_factory=EngineOptions)
    strict: StrictOption = False

    def main(self, console: Console) -> None:
        """Train what is missing, and print tables."""
        from mutualign.cli.progress import ProgressDisplay, with_notes
        from mutualign.data.datasets.registry import expand_tasks, find_task
        from mutualign.data.fetch.data_files import data_folder
        from mutualign.runs.comparison import Comparison, with_baselines
        from mutualign.runs.jobs import TaskPlace
        from mutualign.runs.loading import default_recipe, load_for_all, recipes_for
        from mutualign.runs.network_choice import NetworkChoice
        from mutualign.runs.rows import save_results

        require_between("--seeds", self.seeds, 1, MOST_SEEDS)
        require_place("--out", self.out)
        named = ",".join(self.task) if self.task else None
        own, folder = self.own_images.images(named), data_folder(self.data)
        tasks = expand_tasks(TASK if named is None else named) if own is None else (own.name,)
        photos = default_recipe(own) == "photos"
        if own is None:
            entries = [find_task(task) for task in tasks]  # every name is checked
            photos = all(entry.pair is not None for entry in entries)
        default = PHOTO_RECIPES if photos else RECIPES_BY_DEFAULT
        chosen = NetworkChoice(self.backbone, self.weights, self.finetune)
        names = ",".join(self.recipes) if self.recipes else default
        recipes = recipes_for(own, names, flat(self.set), chosen, photos=photos)
        recipes = with_baselines(recipes) if self.baselines else recipes
        command = this_command()
        if self.save:
            self._check_save(self.save, command)

        def load(name: str) -> Task:
            return with_notes(console, load_for_all(name, folder, recipes, own))

        def place(task: Task) -> TaskPlace:
            return TaskPlace(task.name, folder, own, task.identity)

        def fail(spec: RunSpec, error: Exception) -> None:
            lost[str(spec)] = described(error)
            console.print(f"{spec}: failed: {lost[str(spec)]}", style="red")

        def keep(rows: list[Row]) -> None:
            if self.save:
                save_results(self.save, command, rows)

        comparison = Comparison(recipes, tasks, tuple(range(self.seeds)), self.out)
        stop, lost = StopSignal(), dict[str, str]()
        if self.parallel.in_this_process:
            with ProgressDisplay(console) as display, stop.saving(command):
                settings = {"accelerator": self.accelerator, "observer": display, "should_stop": stop}
                rows = comparison.run(stop.at_once()(load), keep, fail, **settings)
        else:
            rows, lost = self._run_elsewhere(comparison, load, place, keep, console, command, stop)
        if rows:
            _print_rows(console, comparison, rows)
        if lost:
            for name, why in lost.items():
                console.print(f"missing: {name}: {why}", style="red")
            console.print(f"the same command trains them again: {command}")
            raise SystemExit(MISSING)
        if self.strict and any(row.alarms for row in rows):
            raise SystemExit(ALARMED)

    def _run_elsewhere(
        self,
        comparison: Comparison,
        load: Callable[[str], Task],
        place: Callable[[Task], TaskPlace],
        keep: Callable[[list[Row]], None],
        console: Console,
        command: str,
        stop: StopSignal,
    ) -> tuple[list[Row], dict[str, str]]:
        """Train what is missing with an engine. Return all rows, and why runs are missing, by name."""
        from mutualign.cli.many import ManyRuns
        from mutualign.runs.dispatch import dispatch
        from mutualign.runs.engines import open_engine
        from mutualign.runs.jobs import train_job
        from mutualign.runs.work import Circumstances

        with open_engine(self.parallel.engine, self.parallel.jobs, flat(self.parallel.engine_options)) as engine:
            common = Circumstances.here(self.out, engine.threads, self.accelerator)
            jobs = comparison.jobs(load, place, command, common)
            known: dict[tuple[str, Path], list[Row]] = {}
            lost: dict[str, str] = {}
            while True:
                display = ManyRuns(console, jobs, lambda: keep(comparison.rows(known)))
                with display, stop.saving(command):
                    works = [job.work() for job in jobs]
                    outcomes = dispatch(engine, train_job, works, common.stop_file, stop, display)
                failed = {name: outcome.message for name, outcome in outcomes.items() if outcome.state != "complete"}
                lost |= failed
                # Recipes that a failed run contains are trained on their own.
                jobs = comparison.jobs(load, place, command, common, lost) if failed else []
                if not jobs:
                    keep(rows := comparison.rows())  # also if there was nothing to train
                    return rows, lost

    def _check_save(self, save: Path, command: str) -> None:
        """Raise MutualignError if the rows cannot be written; what this command has written itself may be replaced."""
        from mutualign.io.output import check_output
        from mutualign.runs.loading import split_names
        from mutualign.runs.rows import command_of_results

        tables = [place for place in self.own_images.places().values() if place.is_file()]
        recipes = [Path(name) for name in split_names(",".join(self.recipes)) if name.endswith(".toml")]
        force = self.force or command_of_results(save) == command
        check_output(save, inputs=[*tables, *recipes], force=force)


def _verdicts(comparison: Comparison) -> dict[tuple[str, str], str]:
    """Count the verdicts on the runs of each task and recipe."""
    from mutualign.runs.next_steps import current_verdict

    found: dict[tuple[str, str], Counter[str]] = {}
    for task, recipe, seed in product(comparison.tasks, comparison.recipes, comparison.seeds):
        run = comparison.folder(recipe, task, seed)
        if run and run.is_complete and (verdict := current_verdict(run)):
            found.setdefault((task, recipe.name), Counter())[verdict.headline] += 1
    return {key: ", ".join(f"{name} {n}" for name, n in count.most_common()) for key, count in found.items()}


def _print_rows(console: Console, comparison: Comparison, rows: Sequence[Row]) -> None:
    """Print the tables of rows, their alarms, and how to look at one of the runs."""
    from mutualign.cli.tables import difference_tables, summary_tables
    from mutualign.runs.statistics import differences, fair_baselines, summarise

    unlabelled = all(row.target_accuracy is None for row in rows)
    verdicts = _verdicts(comparison) if unlabelled else {}
    gains = differences(rows, fair_baselines({recipe.name: recipe for recipe in comparison.recipes}))
    for table in (*summary_tables(summarise(rows), verdicts), *difference_tables(gains)):
        console.print(table)
    for row in rows:
        if row.alarms:
            where = f"{row.recipe} on {row.task}, seed {row.seed}"
            console.print(f"alarm: {where}: {', '.join(row.alarms)}", style="yellow")
    last = rows[-1]
    if unlabelled:
        report = mutualign_command("report", comparison.path(comparison.recipes[0], last.task, last.seed).parents[1])
        console.print(f"the target has no labels: `{report}` shows the evidence without them")
    console.print(f"run folders: {comparison.out}/TASK/RECIPE/seed-N")
    for recipe in comparison.recipes:
        trained = comparison.path(recipe, last.task, last.seed).parent.name
        if trained != recipe.name:
            console.print(f"  {recipe.name}: in the folder of {trained}, whose first stages it is")
    recipe = next(recipe for recipe in comparison.recipes if recipe.name == last.recipe)
    command = mutualign_command("show", comparison.path(recipe, last.task, last.seed))
    console.print(f"next, for example: {command}")
