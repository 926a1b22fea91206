"""A comparison: recipes x tasks x seeds; runs that are missing are trained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from mutualign.data.task import Task
from mutualign.errors import MutualignError
from mutualign.recipes import Recipe
from mutualign.runs.folder import RunFolder
from mutualign.runs.jobs import Job, TaskPlace, experiment_of, run_of
from mutualign.runs.rows import Row, rows_of
from mutualign.runs.spec import RunSpec
from mutualign.runs.work import Circumstances
from mutualign.training.loop import Stopped


def with_baselines(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """Put the fair baseline of each adapted recipe before it, unless an equal recipe is there already.

    >>> from mutualign.recipes import load_recipe
    >>> [recipe.name for recipe in with_baselines([load_recipe("photos_source_only"), load_recipe("photos")])]
    ['photos_source_only', 'photos']
    """
    known, found = {recipe.digest for recipe in recipes}, list[Recipe]()
    for recipe in recipes:
        baseline = recipe.source_only()
        if baseline.digest not in known:
            known.add(baseline.digest)
            found.append(baseline)
        found.append(recipe)
    return tuple(found)


@dataclass(frozen=True)
class Comparison:
    """Every recipe on every task with every seed, in run folders OUT/TASK/RECIPE/seed-SEED; finished runs are skipped.

    A recipe whose stages are the beginning of another's needs no run of its own: with the same seed, its training is
    bit for bit the beginning of the other's, and its row is read at the end of that stage. It has one if the other run
    fails, and if it is the fair baseline of a run, whose verdict needs it.
    """

    recipes: tuple[Recipe, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path

    def __post_init__(self) -> None:
        if not self.seeds:
            raise MutualignError("a comparison needs at least one seed")
        for kind, names in (("recipe", [recipe.name for recipe in self.recipes]), ("task", list(self.tasks))):
            if twice := [name for name in names if names.count(name) > 1]:
                raise MutualignError(f'the {kind} "{twice[0]}" is named twice; its runs would count twice')
        inputs = {recipe.inputs: recipe.name for recipe in self.recipes}
        if len(inputs) > 1:
            names = list(inputs.values())
            raise MutualignError(
                f"recipes {names[0]} and {names[1]} train on different inputs: images, or features of image files\n"
                "  hint:    compare them in two folders, with --out"
            )

    def run(
        self,
        load: Callable[[str], Task],
        on_row: Callable[[list[Row]], None] = lambda rows: None,
        on_failure: Callable[[RunSpec, Exception], None] | None = None,
        **settings: Any,
    ) -> list[Row]:
        """Train what is missing and return all rows; `on_row` gets the rows so far after each seed.

        `load` returns a task by its name. It is called at most once per task: to train, and to check that finished runs
        on a user's own images are on the images of this comparison. `settings` are those of `Experiment`. A run that
        fails, because training diverges or a method has a fault, ends the comparison, or goes to `on_failure` and costs
        its own rows only: recipes that it contains are then trained on their own.
        Raises MutualignError if a folder holds a run with other settings or on other data.
        """
        rows: list[Row] = []
        failed: set[str] = set()
        for name in self.tasks:
            data = _Data(cache(partial(load, name)))
            for seed in self.seeds:
                while missing := list(self._missing(name, seed, data, failed)):
                    for spec, run in missing:
                        task = data.task()
                        try:
                            experiment_of(spec, task, spec.path(self.out), run, **settings).run()
                        except Stopped:
                            raise
                        except Exception as error:
                            if on_failure is None:
                                raise
                            failed.add(str(spec))
                            on_failure(spec, error)
                for recipe in self.recipes:
                    trained = self.folder(self._row_of(recipe, name, seed), name, seed)
                    rows += rows_of(recipe, trained) if trained and trained.is_complete else []
                on_row(rows)
        return rows

    def jobs(
        self,
        load: Callable[[str], Task],
        place: Callable[[Task], TaskPlace],
        command: str,
        common: Circumstances,
        failed: Collection[str] = (),
    ) -> list[Job]:
        """Return the runs that are missing as work for other processes; after those that have `failed`, by name.

        `load` is as in `run`, and raises what it raises there. It loads each task once in this process, so that files
        are fetched and features computed before workers need them; `place` says where workers find a task.
        """
        jobs: list[Job] = []
        for name in self.tasks:
            data = _Data(cache(partial(load, name)))
            for seed in self.seeds:
                source_only: list[str] = []
                for spec, _ in self._missing(name, seed, data, failed):
                    after = () if spec.recipe.is_source_only else tuple(source_only)
                    jobs.append(Job(spec, spec.path(self.out), place(data.task()), command, common, after))
                    if spec.recipe.is_source_only:
                        source_only.append(jobs[-1].name)
        return jobs

    def rows(self, known: dict[tuple[str, Path], list[Row]] | None = None) -> list[Row]:
        """Read the rows of all runs that are complete, in the order of `run`.

        `known` keeps those that are read for the next call.
        """
        rows: list[Row] = []
        known = {} if known is None else known
        for name, seed, recipe in product(self.tasks, self.seeds, self.recipes):
            trained = self._row_of(recipe, name, seed)
            key = (recipe.name, RunSpec(trained, name, seed).path(self.out))
            if key not in known and (run := self.folder(trained, name, seed)) and run.is_complete:
                known[key] = rows_of(recipe, run)
            rows += known.get(key, [])
        return rows

    def path(self, recipe: Recipe, task: str, seed: int) -> Path:
        """The run folder that a recipe's row is read from: its own, or that of a recipe which begins with it."""
        return RunSpec(self._row_of(recipe, task, seed), task, seed).path(self.out)

    def folder(self, recipe: Recipe, task: str, seed: int) -> RunFolder | None:
        """The folder of a run that has started, as `run_of` finds it."""
        spec = RunSpec(recipe, task, seed)
        return run_of(spec, spec.path(self.out))

    def _missing(
        self, task: str, seed: int, data: _Data, failed: Collection[str]
    ) -> Iterator[tuple[RunSpec, RunFolder | None]]:
        """Yield the runs to train, each with its folder if it has started; without those that have `failed`, by name.

        Source only comes first, since other runs look for it to check for negative transfer. Raises MutualignError if a
        folder holds a run with other settings or on other data.
        """
        recipes = [one for one in self.recipes if str(RunSpec(one, task, seed)) not in failed]
        for recipe in sorted(recipes, key=lambda one: not one.is_source_only):
            run = self.folder(recipe, task, seed)
            if run:
                data.require_same(run)
            if recipe == _trained_for(recipe, recipes) and not (run and run.is_complete):
                yield RunSpec(recipe, task, seed), run

    def _row_of(self, recipe: Recipe, task: str, seed: int) -> Recipe:
        """The recipe whose run has the row of this one: the shortest complete one, or else the one to train."""
        containing = sorted((one for one in self.recipes if recipe.is_prefix_of(one)), key=lambda one: len(one.stages))
        complete = (one for one in containing if RunFolder(RunSpec(one, task, seed).path(self.out)).is_complete)
        return next(complete, _trained_for(recipe, self.recipes))


def _trained_for(recipe: Recipe, recipes: Sequence[Recipe]) -> Recipe:
    """Of some recipes, the one to train for this one: the longest that begins with it.

    The fair baseline of another recipe that is trained is trained itself, as `fair_baseline` looks for its run.
    """
    longest = max((one for one in recipes if recipe.is_prefix_of(one)), key=lambda one: len(one.stages))
    if longest != recipe and recipe.is_source_only:
        adapted = [one for one in recipes if not one.is_source_only and one.source_only().digest == recipe.digest]
        if any(one == _trained_for(one, recipes) for one in adapted):
            return recipe
    return longest


class _Data:
    """The data of one task in a comparison: loaded when needed, and the same in all of its runs."""

    def __init__(self, load: Callable[[], Task]) -> None:
        self._load = load
        self._known: str | None = None  # identity of the data of the runs so far
        self._where = ""

    def task(self) -> Task:
        """Load the task. Raises MutualignError if finished runs are on other data."""
        task = self._load()
        self._require(task.identity, "the images that were given")
        return task

    def require_same(self, run: RunFolder) -> None:
        """Raise MutualignError unless a run is on the same data as the others; own images are loaded to know theirs."""
        config = run.config()
        identity = config.data
        if config.own_images is not None and (task := self.task()).is_data(identity):
            identity = task.identity  # an earlier version may have recorded another one
        self._require(identity, str(run.path))

    def _require(self, identity: str, where: str) -> None:
        if self._known is None:
            self._known, self._where = identity, where
        if identity != self._known:
            raise MutualignError(
                f"{where}: other data than in {self._where}\n"
                f"  here     {identity}\n"
                f"  there    {self._known}\n"
                "  hint:    choose another --out"
            )
