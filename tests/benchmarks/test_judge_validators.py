"""The benchmark of validators: what it calls lost, on runs whose numbers are known."""

from __future__ import annotations

import judge_validators as validators
import pytest

from mutualign.evaluation.validators import VALIDATORS
from mutualign.runs.folder import RunFolder


def epoch(number, accuracy, **scores):
    every = dict.fromkeys(VALIDATORS, 0.5) | scores
    return {"stage": 0, "epoch": number, "target_accuracy": accuracy, "scores": every}


def run(recipe, *epochs, seed=0, task="digits"):
    return validators.Run(task, recipe, seed, list(epochs), "abc", "a machine")


GOOD = run("good", epoch(1, 0.6, mano=0.1, coverage=0.9), epoch(2, 0.9, mano=0.2, coverage=0.8))
BAD = run("bad", epoch(1, 0.3, mano=0.15, coverage=0.99), epoch(2, 0.2, mano=0.12, coverage=0.1))


def rows_of(validator, runs):
    return {row["recipe"]: row for row in validators.judge(runs) if row["validator"] == validator}


def test_a_validator_that_follows_the_accuracy_loses_nothing():
    rows = rows_of("mano", [GOOD, BAD])
    for row in rows.values():
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


def test_runs_of_other_seeds_and_tasks_are_no_rivals():
    other = run("bad", *BAD.epochs, seed=1), run("bad", *BAD.epochs, task="another")
    for row in rows_of("coverage", [GOOD, *other]).values():
        assert row["recipes"] == 1
        assert row["lost_against_oracle_recipe"] == row["lost_against_oracle_epoch"]


def test_scores_that_do_not_change_have_no_rank_correlation():
    assert rows_of("class_ami", [GOOD])["good"]["rank_correlation"] is None


def test_the_summary_counts_a_choice_among_recipes_once():
    lines = {line["validator"]: line for line in validators.summary(validators.judge([GOOD, BAD]))}
    assert lines["coverage"]["epoch_mean"] == pytest.approx(15)
    assert lines["coverage"]["epoch_worst"] == pytest.approx(30)
    assert lines["coverage"]["recipe_mean"] == lines["coverage"]["recipe_worst"] == pytest.approx(60)
    assert (lines["coverage"]["runs"], lines["coverage"]["contests"]) == (2, 1)
    assert lines["mano"]["recipe_mean"] == 0


def test_run_folders_are_read_and_those_that_lack_an_end_or_a_score_are_left_out(run_benchmark, tmp_path):
    for seed, complete, scored in ((0, True, True), (1, False, True), (2, True, False)):
        folder = RunFolder.create(tmp_path / f"digits/good/seed-{seed}", {"task": "digits"})
        for record in GOOD.epochs:
            folder.append_metrics(record if scored else record | {"scores": {"mano": 0.5}})
        if complete:
            about = {"task": "digits", "recipe": "good", "seed": seed, "hardware": "a machine"}
            folder.write_result(about | {"versions": {"commit": "abc"}})
    results, said = run_benchmark("judge_validators.py", tmp_path)
    assert (results["commit"], results["hardware"]) == ("abc", "a machine")
    assert len(results["rows"]) == len(results["summary"]) == len(VALIDATORS)
    assert {row["seed"] for row in results["rows"]} == {0}
    assert "1 of 3 runs" in said
