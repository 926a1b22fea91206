"""The benchmark of validators: what choosing by each one loses, on runs whose numbers are known."""

from __future__ import annotations

from dataclasses import replace

import evaluate_validators
import pytest

from mutualign.evaluation.records import EpochRecord
from mutualign.evaluation.validators import VALIDATORS
from mutualign.recipes import load_recipe
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result, summarise


def epoch(number, accuracy, **scores):
    return EpochRecord(0, number, "dann", 1.0, {}, dict.fromkeys(VALIDATORS, 0.5) | scores, 0.99, accuracy)


def run(recipe, *epochs, seed=0, task="digits"):
    stages = summarise(epochs, "combined")
    result = Result(recipe, task, "data", seed, "", "a machine", {"commit": "abc"}, stages)
    return evaluate_validators.Run(result, epochs)


GOOD = run("good", epoch(1, 0.6, mano=0.1, coverage=0.9), epoch(2, 0.9, mano=0.2, coverage=0.8))
BAD = run("bad", epoch(1, 0.3, mano=0.15, coverage=0.99), epoch(2, 0.2, mano=0.12, coverage=0.1))


def rows_of(validator, runs):
    return {row["recipe"]: row for row in evaluate_validators.evaluate(runs) if row["validator"] == validator}


def test_a_validator_that_follows_the_accuracy_loses_nothing():
    for row in rows_of("mano", [GOOD, BAD]).values():
        assert row["rank_correlation"] == pytest.approx(1)
        assert row["lost_against_oracle_epoch"] == row["lost_against_oracle_recipe"] == 0
        assert row["recipes"] == 2


def test_a_validator_that_is_fooled_loses_the_difference_within_a_run_and_among_recipes():
    rows = rows_of("coverage", [GOOD, BAD])
    assert rows["good"]["rank_correlation"] == pytest.approx(-1)
    assert rows["good"]["lost_against_oracle_epoch"] == pytest.approx(0.3)
    assert rows["bad"]["lost_against_oracle_epoch"] == 0
    for row in rows.values():  # it takes the first epoch of the bad recipe
        assert row["lost_against_oracle_recipe"] == pytest.approx(0.6)
    assert rows_of("class_ami", [GOOD])["good"]["rank_correlation"] is None  # scores that do not change


def test_runs_with_other_seeds_and_tasks_do_not_compete():
    other = run("bad", *BAD.epochs, seed=1), run("bad", *BAD.epochs, task="another")
    for row in rows_of("coverage", [GOOD, *other]).values():
        assert row["recipes"] == 1
        assert row["lost_against_oracle_recipe"] == row["lost_against_oracle_epoch"]


def test_the_summary_counts_a_choice_among_recipes_once():
    lines = {line["validator"]: line for line in evaluate_validators.summary(evaluate_validators.evaluate([GOOD, BAD]))}
    assert lines["coverage"]["epoch_mean"] == pytest.approx(15)
    assert lines["coverage"]["epoch_worst"] == pytest.approx(30)
    assert lines["coverage"]["recipe_mean"] == lines["coverage"]["recipe_worst"] == pytest.approx(60)
    assert (lines["coverage"]["runs"], lines["coverage"]["contests"]) == (2, 1)
    assert lines["mano"]["recipe_mean"] == 0


def test_incomplete_runs_and_runs_that_lack_a_score_are_left_out(run_benchmark, tmp_path):
    recipe = replace(load_recipe("dann", ["stages.0.epochs=2"]), name="good")
    for seed, complete, scored in ((0, True, True), (1, False, True), (2, True, False)):
        config = {"command": "", "task": "digits", "data": "data", "seed": seed, "recipe": recipe.to_dict()}
        folder = RunFolder.create(tmp_path / f"digits/good/seed-{seed}", config)
        for record in GOOD.epochs:
            folder.append_metrics(record if scored else replace(record, scores={"mano": 0.5}))
        if complete:
            folder.write_result(replace(GOOD.result, seed=seed))
    results, output = run_benchmark("evaluate_validators.py", tmp_path)
    assert (results["commit"], results["hardware"]) == ("abc", "a machine")
    assert len(results["rows"]) == len(results["summary"]) == len(VALIDATORS)
    assert {row["seed"] for row in results["rows"]} == {0}
    assert "1 of 3 runs" in output
