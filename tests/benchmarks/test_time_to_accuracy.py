"""The benchmark of time to accuracy: its clock, its limit and its rows. No test here measures a time."""

from __future__ import annotations

import time_to_accuracy

from mutualign.evaluation.records import EpochAudit, EpochRecord
from mutualign.recipes import load_recipe


def record(stage, seconds, accuracy):
    return EpochRecord(stage, 1, "dann", seconds, {}, {}, 0.99, accuracy, EpochAudit([], []))


def test_the_clock_adds_the_seconds_of_earlier_stages_and_takes_the_first_epoch_that_reaches_a_goal():
    clock = time_to_accuracy.Clock(limit=45.0)
    for entry in [record(0, 10.0, 0.5), record(0, 20.0, 0.9), record(1, 12.0, 0.88), record(1, 25.0, 0.98)]:
        assert not clock.should_stop()
        clock.epoch(entry)
    assert clock.curve == [(10.0, 0.5), (20.0, 0.9), (32.0, 0.88), (45.0, 0.98)]
    assert (clock.seconds_to(0.87), clock.seconds_to(0.97), clock.seconds_to(0.985)) == (20.0, 45.0, None)
    clock.epoch(record(1, 26.0, 0.98))
    assert clock.should_stop()


def test_a_run_that_passes_the_limit_is_stopped_and_its_row_says_so(tiny_task):
    recipe = load_recipe("source_only", ["stages.0.epochs=3", "stages.0.batch_size=25"])
    row = time_to_accuracy.measure(recipe, tiny_task, 0, limit=0.0)
    assert (row["complete"], len(row["curve"])) == (False, 1)


def test_the_results_have_a_row_per_recipe_and_seed_with_the_whole_curve(run_benchmark, tmp_path):
    recipe = tmp_path / "short.toml"
    recipe.write_text('backbone = "mlp"\n[[stages]]\nmethod = "source_only"\nepochs = 2\n')
    results, _ = run_benchmark("time_to_accuracy.py", "--task", "digits", "--recipes", recipe, "--seeds", "2")
    assert results["limit_seconds"] == 600
    rows = [(row["recipe"], row["task"], row["seed"], row["complete"], len(row["curve"])) for row in results["rows"]]
    assert rows == [("short", "digits", seed, True, 2) for seed in (0, 1)]
    assert all(set(row["seconds"]) == {"87", "97", "98.5"} for row in results["rows"])
