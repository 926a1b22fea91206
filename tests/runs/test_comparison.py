"""Which runs a comparison trains, which it takes as done, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable

import pytest
import torch

from mutualign.data.task import Task
from mutualign.errors import MutualignError
from mutualign.recipes import OptimConfig
from mutualign.runs.comparison import Comparison, with_baselines
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.rows import rows_of, save_results
from mutualign.runs.spec import RunSpec
from mutualign.runs.verdict import fair_baseline
from mutualign.training.loop import NotFinite
from tests.runs.samples import recipe, untimed
from tests.tiny_task import make_tiny_task

SOURCE_ONLY, DANN, MANI = RECIPES = [
    recipe(*methods, epochs=1, batch_size=25) for methods in (("source_only",), ("dann",), ("dann", "mani"))
]


def path_of(out, recipe, seed=0):
    return RunSpec(recipe, "tiny", seed).path(out)


@pytest.fixture
def load(tiny_task) -> Callable[[str], Task]:
    """Return the tiny task; its `names` are those that it was asked for."""

    def load(name: str) -> Task:
        load.names.append(name)
        return tiny_task

    load.names = []
    return load


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder, rows and counts of rows of a finished comparison of three recipes and two seeds."""
    out, seen = tmp_path_factory.mktemp("comparison"), []
    comparison = Comparison(tuple(RECIPES), ("tiny",), (0, 1), out)
    rows = comparison.run(lambda name: make_tiny_task(), lambda rows: seen.append(len(rows)))
    return out, comparison, rows, seen


def test_there_is_a_row_per_recipe_seed_and_selection_and_nothing_is_trained_twice(finished, load):
    _, comparison, rows, seen = finished
    selections = ("last", "validator:combined", "oracle")
    expected = {(each.name, seed, selection) for each in RECIPES for seed in (0, 1) for selection in selections}
    assert {(row.recipe, row.seed, str(row.selection)) for row in rows} == expected
    assert len(rows) == len(expected)
    assert seen == [9, 18]
    assert comparison.run(load) == rows
    assert load.names == []  # nothing was trained, so nothing was loaded


def test_the_row_of_a_recipe_that_another_begins_with_is_what_training_it_alone_gives(finished, tmp_path, tiny_task):
    out, comparison, rows, _ = finished
    assert not path_of(out, DANN).exists()
    assert comparison.path(DANN, "tiny", 1) == path_of(out, MANI, 1)
    alone = Experiment.start(DANN, tiny_task, 0, tmp_path / "alone")
    alone.run()
    shared = [row for row in rows if (row.recipe, row.seed) == ("dann", 0)]
    for row in (*shared, *(own := rows_of(DANN, alone.folder))):
        (row.curves or {}).pop("train_seconds", None)
    assert untimed(shared) == untimed(own)
    ours, theirs = (
        folder.checkpoints.load_weights(0, "last")[0] for folder in (RunFolder(path_of(out, MANI)), alone.folder)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_run_that_fails_costs_its_own_rows_only_if_failures_are_taken(tmp_path, load):
    (stage,) = recipe("dann", batch_size=25).stages
    too_fast = dataclasses.replace(stage, optim=OptimConfig(lr=1e30))
    diverges = dataclasses.replace(DANN, name="diverges", stages=(too_fast,))
    comparison, failures = Comparison((diverges, DANN), ("tiny",), (0,), tmp_path), []
    rows = comparison.run(load, on_failure=lambda spec, error: failures.append((spec.recipe.name, type(error))))
    assert failures == [("diverges", NotFinite)]
    assert {row.recipe for row in rows} == {"dann"}
    with pytest.raises(NotFinite):
        comparison.run(load)


def test_an_adapted_recipe_is_trained_after_its_fair_baseline_and_compared_with_it(tmp_path, load):
    adapted = (DANN, MANI.source_only(), MANI)
    recipes = with_baselines(adapted)
    assert recipes == (DANN.source_only(), *adapted)  # mani's is there already
    comparison = Comparison((DANN, DANN.source_only()), ("tiny",), (0,), tmp_path)
    comparison.run(load)
    assert RunFolder.open(path_of(tmp_path, DANN)).result().compared_with == DANN.source_only().name
    assert RunFolder.open(path_of(tmp_path, DANN.source_only())).result().compared_with is None


def test_the_fair_baseline_of_a_run_is_trained_itself_although_a_longer_baseline_begins_with_it(tmp_path, load):
    longer = recipe("source_only", "mani", epochs=1, batch_size=25)  # as shot: its baseline begins with dann's
    comparison = Comparison(with_baselines((DANN, longer)), ("tiny",), (0,), tmp_path)
    rows = comparison.run(load)
    for each in (DANN, longer):
        fair = fair_baseline(RunFolder.open(path_of(tmp_path, each)))
        assert fair.path == path_of(tmp_path, each.source_only())
    assert comparison.rows() == rows
    # The run of mani has dann's row, and no verdict on dann: nothing is trained for that.
    shared = Comparison(with_baselines((DANN, MANI)), ("tiny",), (0,), tmp_path / "shared")
    assert {row.recipe for row in shared.run(load)} == {one.name for one in shared.recipes}
    trained = {path.parent.name for path in (tmp_path / "shared").glob("tiny/*/seed-0")}
    assert trained == {MANI.name, MANI.source_only().name}


def test_a_recipe_that_a_failed_run_begins_with_is_trained_on_its_own(tmp_path, load):
    too_fast = dataclasses.replace(MANI.stages[1], optim=OptimConfig(lr=1e30))
    diverges = dataclasses.replace(MANI, name="diverges", stages=(DANN.stages[0], too_fast))
    comparison, failures = Comparison(with_baselines((DANN, diverges)), ("tiny",), (0,), tmp_path), []
    rows = comparison.run(load, on_failure=lambda spec, error: failures.append(spec.recipe.name))
    assert failures == [diverges.source_only().name, "diverges"]
    assert {row.recipe for row in rows} == {DANN.source_only().name, DANN.name}
    own = RunFolder.open(path_of(tmp_path, DANN))
    assert comparison.path(DANN, "tiny", 0) == own.path
    assert own.result().compared_with == DANN.source_only().name
    again = comparison.run(load, on_failure=lambda spec, error: failures.append(spec.recipe.name))
    assert len(failures) == 4
    assert again == comparison.rows() == rows


def test_a_results_file_holds_the_command_and_the_rows(finished, tmp_path):
    _, _, rows, _ = finished
    save_results(tmp_path / "new" / "results.json", "mutualign compare", rows)
    content = json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8"))
    assert content.keys() == {"command", "commit", "hardware", "created", "rows"}
    needed = {"recipe", "task", "seed", "selection", "target_accuracy", "source_accuracy", "train_seconds", "epochs"}
    assert all(needed <= row.keys() for row in content["rows"])
    assert {row["selection"] for row in content["rows"]} == {"last", "validator:combined", "oracle"}


@pytest.mark.parametrize("begun", ["started", "made in part", "empty"])
def test_a_run_that_was_started_or_half_made_is_finished(tmp_path, load, tiny_task, begun):
    path = path_of(tmp_path, SOURCE_ONLY)
    if begun == "started":
        Experiment.start(SOURCE_ONLY, tiny_task, 0, path)
    else:
        (path / "checkpoints").mkdir(parents=True)
    if begun == "made in part":  # killed while config.toml was written
        (path / ".lock").touch()
        (path / ".config.toml.1234.part").write_text("format = ", encoding="utf-8")
    rows = Comparison((SOURCE_ONLY,), ("tiny",), (0,), tmp_path).run(load)
    assert {row.recipe for row in rows} == {"source_only"}
    assert not list(path.glob("*.part"))


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipes", "tasks", "seeds", "message"),
    [
        (RECIPES, ("tiny",), (), "at least one seed"),
        ((*RECIPES, DANN), ("tiny",), (0,), 'the recipe "dann" is named twice'),
        (RECIPES, ("tiny", "tiny"), (0,), 'the task "tiny" is named twice'),
    ],
)
def test_a_comparison_of_nothing_or_of_one_thing_twice_is_refused(tmp_path, recipes, tasks, seeds, message):
    with pytest.raises(MutualignError, match=message):
        Comparison(tuple(recipes), tasks, seeds, tmp_path)


@pytest.fixture
def out(finished, tmp_path):
    """A copy of the finished comparison, to be changed."""
    shutil.copytree(finished[0], tmp_path / "out")
    return tmp_path / "out"


def test_a_run_with_other_settings_or_under_another_seed_is_refused_and_kept(out, load):
    stage = dataclasses.replace(SOURCE_ONLY.stages[0], epochs=2)
    longer = dataclasses.replace(SOURCE_ONLY, stages=(stage,))  # the same name: a recipe file that was edited
    with pytest.raises(MutualignError, match="other settings"):
        Comparison((longer,), ("tiny",), (0,), out).run(load)
    path_of(out, SOURCE_ONLY).rename(path_of(out, SOURCE_ONLY, 7))
    with pytest.raises(MutualignError, match="another task or seed: source_only on tiny, seed 0"):
        Comparison((SOURCE_ONLY,), ("tiny",), (7,), out).run(load)
    assert RunFolder.open(path_of(out, SOURCE_ONLY, 7)).result()
    assert load.names == []


class Places:
    """Where a user's own images are, as far as a run's config needs it."""

    def to_dict(self):
        return {"source": "/photos/a", "target": "/photos/b"}

    def load(self):
        raise AssertionError("not loaded here")


def own(task, identity):
    """The task as one of a user's own images."""
    return dataclasses.replace(task, identity=identity, folders=Places())


def test_results_on_other_images_are_not_taken_as_done(tmp_path, tiny_task):
    """Own images: two folders of the same name give the same run folder."""
    comparison = Comparison((SOURCE_ONLY,), ("tiny",), (0,), tmp_path)
    rows = comparison.run(lambda name: own(tiny_task, "first images"))
    assert comparison.run(lambda name: own(tiny_task, "first images")) == rows
    with pytest.raises(MutualignError, match=r"other data(.|\n)*here     first(.|\n)*there    second"):
        comparison.run(lambda name: own(tiny_task, "second images"))

    def absent(name):
        raise MutualignError("no such folder")

    with pytest.raises(MutualignError, match="no such folder"):
        comparison.run(absent)


def test_a_run_that_is_missing_is_not_trained_on_other_data_than_the_finished_ones(out, tiny_task):
    shutil.rmtree(path_of(out, SOURCE_ONLY, 1))
    other = dataclasses.replace(tiny_task, identity="another draw")
    with pytest.raises(MutualignError, match="other data"):
        Comparison((SOURCE_ONLY,), ("tiny",), (0, 1), out).run(lambda name: other)
    assert not path_of(out, SOURCE_ONLY, 1).exists()
