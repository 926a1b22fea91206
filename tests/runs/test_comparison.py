"""Rows, intervals, and which runs a comparison trains."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch

from mutualign.data.task import Task
from mutualign.errors import MutualignError
from mutualign.recipes import load_recipe
from mutualign.runs.comparison import (
    Comparison,
    Interval,
    Summary,
    differences,
    rows_of,
    run_path,
    save_results,
    summarise,
)
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder

SHORT = ["stages.0.epochs=1", "stages.0.batch_size=25"]
RECIPES = (
    load_recipe("source_only", SHORT),
    load_recipe("dann", SHORT),
    load_recipe("mani", [*SHORT, "stages.1.epochs=1", "stages.1.batch_size=25"]),
)


@pytest.fixture
def load(tiny_task) -> Callable[[str], Task]:
    """Gives the tiny task; its `names` are those that it was asked for."""

    def load(name: str) -> Task:
        load.names.append(name)
        return tiny_task

    load.names = []
    return load


def test_an_interval_of_one_value_has_no_width_and_equal_values_have_width_zero():
    assert Interval.of([0.5]) == Interval(0.5, None, 1)
    assert Interval.of([0.5, 0.5, 0.5]) == Interval(0.5, 0.0, 3)


def test_an_interval_equals_students_closed_form_for_two_values():
    # t(0.975, 1 degree of freedom) = tan(0.475 pi); the standard error of {a, b} is |a - b| / 2
    interval = Interval.of([0.6, 0.8])
    assert interval.mean == pytest.approx(0.7)
    assert interval.half_width == pytest.approx(math.tan(0.475 * math.pi) * 0.1)
    assert interval.percent() == f"70.0 ± {100 * math.tan(0.475 * math.pi) * 0.1:.1f}"


def test_a_prefix_recipe_is_not_trained_on_its_own_and_its_row_is_what_training_it_would_give(
    tmp_path, load, tiny_task
):
    rows = Comparison(RECIPES, ("tiny",), (0,), tmp_path / "all").run(load)
    assert not run_path(tmp_path / "all", "tiny", RECIPES[1], 0).exists()
    alone = Experiment.start(RECIPES[1], tiny_task, 0, tmp_path / "alone")
    alone.run()

    def untimed(rows: list[dict]) -> list[dict]:
        for row in rows:
            row.pop("train_seconds")
            row.get("curves", {}).pop("train_seconds", None)
        return rows

    shared = [row for row in rows if row["recipe"] == "dann"]
    assert untimed(shared) == untimed(rows_of(RECIPES[1], alone.folder))
    ours = RunFolder(run_path(tmp_path / "all", "tiny", RECIPES[2], 0)).load_tensors("stage-0-last")[0]
    theirs = alone.folder.load_tensors("stage-0-last")[0]
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_comparisonhas_a_row_a_recipe_seed_and_selection_and_skips_what_is_done(tmp_path, load):
    seen: list[int] = []
    comparison = Comparison(RECIPES, ("tiny",), (0, 1), tmp_path)
    rows = comparison.run(load, lambda rows: seen.append(len(rows)))
    selections = ("last", "validator:combined", "oracle")
    expected = {(r.name, seed, selection) for r in RECIPES for seed in (0, 1) for selection in selections}
    assert {(row["recipe"], row["seed"], row["selection"]) for row in rows} == expected
    assert len(rows) == len(expected)
    assert seen == [9, 18]
    assert load.names == ["tiny"]
    assert comparison.run(load) == rows
    assert load.names == ["tiny"]  # nothing was trained, so nothing was loaded


def test_a_stopped_comparisongoes_on_with_the_unfinished_run(tmp_path, load, tiny_task):
    Experiment.start(RECIPES[0], tiny_task, 0, run_path(tmp_path, "tiny", RECIPES[0], 0))  # begun, not trained
    rows = Comparison(RECIPES[:1], ("tiny",), (0,), tmp_path).run(load)
    assert {row["recipe"] for row in rows} == {"source_only"}


def test_a_run_folder_of_other_settings_is_refused_and_kept(tmp_path, load):
    Comparison(RECIPES[:1], ("tiny",), (0,), tmp_path).run(load)
    other = load_recipe("source_only", ["stages.0.epochs=2"])
    with pytest.raises(MutualignError, match="other settings"):
        Comparison((other,), ("tiny",), (0,), tmp_path).run(load)
    assert RunFolder.open(run_path(tmp_path, "tiny", other, 0)).result()


def test_rows_of_an_unfinished_run_are_refused_with_the_command_that_finishes_it(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(MutualignError, match="mutualign run --resume"):
        rows_of(RECIPES[0], run)


def test_a_summary_takes_means_over_seeds_by_selection():
    def row(seed: int, selection: str, target: float) -> dict:
        keys = {"task": "t", "recipe": "r", "seed": seed, "selection": selection}
        return keys | {"target_accuracy": target, "source_accuracy": 0.5, "train_seconds": 10.0 * (seed + 1)}

    (summary,) = summarise([row(0, "last", 0.2), row(0, "oracle", 0.4), row(1, "last", 0.2), row(1, "oracle", 0.4)])
    assert summary == Summary(
        "t", "r", Interval(0.5, 0.0, 2), {"last": Interval(0.2, 0.0, 2), "oracle": Interval(0.4, 0.0, 2)}, 15.0
    )


def test_a_results_file_holds_what_the_house_format_asks(tmp_path, load):
    rows = Comparison(RECIPES[:1], ("tiny",), (0,), tmp_path).run(load)
    save_results(tmp_path / "new" / "results.json", "mutualign compare", rows)
    content = json.loads((tmp_path / "new" / "results.json").read_text())
    assert content.keys() == {"command", "commit", "hardware", "created", "rows"}
    asked = {"recipe", "task", "seed", "selection", "target_accuracy", "source_accuracy", "train_seconds", "epochs"}
    assert all(asked <= row.keys() for row in content["rows"])


@pytest.mark.parametrize(
    ("recipes", "tasks", "seeds", "told"),
    [
        (RECIPES, ("tiny",), (), "at least one seed"),
        ((*RECIPES, RECIPES[1]), ("tiny",), (0,), 'the recipe "dann" is named twice'),
        (RECIPES, ("tiny", "tiny"), (0,), 'the task "tiny" is named twice'),
    ],
)
def test_a_comparisonof_nothing_or_of_one_thing_twice_is_refused(tmp_path, recipes, tasks, seeds, told):
    with pytest.raises(MutualignError, match=told):
        Comparison(recipes, tasks, seeds, tmp_path)


def test_differences_are_paired_by_seed_against_the_first_recipe():
    def row(recipe, seed, accuracy, selection="last", task="t"):
        return {"task": task, "recipe": recipe, "seed": seed, "selection": selection, "target_accuracy": accuracy}

    rows = [row("a", seed, accuracy) for seed, accuracy in enumerate((0.1, 0.5, 0.9))]
    rows += [row("b", seed, accuracy) for seed, accuracy in ((2, 1.0), (0, 0.2), (7, 0.0))]  # seeds 0 and 2 are shared
    rows += [row("a", 0, 0.3, "oracle"), row("c", 9, 0.5), row("b", 0, 0.5, task="other")]
    (difference,) = differences(rows)
    assert (difference.task, difference.recipe, difference.baseline) == ("t", "b", "a")
    assert difference.target.keys() == {"last"}
    gain = difference.target["last"]
    assert gain.n == 2
    assert gain.mean == pytest.approx(0.1)
    assert gain.half_width == pytest.approx(0.0, abs=1e-12)  # +0.1 with either seed, however far the seeds are apart
    assert gain.percent(sign="+") == "+10.0 ± 0.0"


def test_source_only_is_trained_first_so_that_the_others_can_be_held_against_it(tmp_path, load):
    recipes = (RECIPES[1], RECIPES[0])
    Comparison(recipes, ("tiny",), (0,), tmp_path).run(load)
    results = {recipe.name: RunFolder.open(run_path(tmp_path, "tiny", recipe, 0)).result() for recipe in recipes}
    assert results["dann"]["compared_with"] == "source_only"
    assert results["source_only"]["compared_with"] is None


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.toml", "format = 99"), ("config.toml", "no toml"), ("result.json", "{"), ("metrics.jsonl", "")],
)
def test_a_neighbour_that_cannot_be_read_does_not_cost_a_run_its_result(tmp_path, load, file, content):
    Comparison((RECIPES[0],), ("tiny",), (0,), tmp_path).run(load)
    neighbour = run_path(tmp_path, "tiny", RECIPES[0], 0)
    (neighbour / file).write_text(content)
    path = run_path(tmp_path, "tiny", RECIPES[1], 0)
    result = Experiment.start(RECIPES[1], load("tiny"), 0, path).run()
    assert result["compared_with"] is None
