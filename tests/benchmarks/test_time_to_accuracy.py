"""The benchmark of time to accuracy: its clock, its limit and its rows. No test here takes a time."""

from __future__ import annotations

import pytest
import time_to_accuracy

from mutualign.recipes import load_recipe


def record(stage, seconds, accuracy):
    return {"stage": stage, "train_seconds": seconds, "target_accuracy": accuracy}


def test_the_clock_adds_the_seconds_of_earlier_stages_and_takes_the_first_passing_of_a_goal():
    clock = time_to_accuracy.Clock(limit=45.0)
    for entry in [record(0, 10.0, 0.5), record(0, 20.0, 0.9), record(1, 12.0, 0.88), record(1, 25.0, 0.98)]:
        assert not clock.should_stop()
        clock.epoch(entry)
    assert clock.curve == [(10.0, 0.5), (20.0, 0.9), (32.0, 0.88), (45.0, 0.98)]
    assert (clock.seconds_to(0.87), clock.seconds_to(0.97), clock.seconds_to(0.985)) == (20.0, 45.0, None)
    clock.epoch(record(1, 26.0, 0.98))
    assert clock.should_stop()


@pytest.mark.parametrize(("limit", "complete", "epochs"), [(600.0, True, 3), (0.0, False, 1)])
def test_a_row_has_the_curve_up_to_the_end_or_the_limit(tiny_task, limit, complete, epochs):
    recipe = load_recipe("source_only", ["stages.0.epochs=3", "stages.0.batch_size=10"])
    row = time_to_accuracy.measure(recipe, tiny_task, 0, limit)
    assert row["complete"] is complete
    assert len(row["curve"]) == epochs
    assert set(row["seconds"]) == {"87", "97", "98.5"}
    assert (row["recipe"], row["task"], row["seed"]) == ("source_only", "tiny", 0)


@pytest.mark.slow
def test_a_run_on_the_embedded_task_writes_a_row_a_recipe_and_seed(run_benchmark, tmp_path):
    recipe = tmp_path / "short.toml"
    recipe.write_text('description = "short"\n[[stages]]\nmethod = "source_only"\nepochs = 1\n')
    results, _ = run_benchmark("time_to_accuracy.py", "--task", "digits", "--recipes", recipe, "--seeds", "2")
    assert results["limit_seconds"] == 600
    assert [(row["recipe"], row["seed"], row["complete"]) for row in results["rows"]] == [
        ("short", 0, True),
        ("short", 1, True),
    ]
