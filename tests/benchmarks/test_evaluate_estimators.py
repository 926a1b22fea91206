"""The benchmark of estimators and alarms, on tiny runs whose folders it reads."""

from __future__ import annotations

import evaluate_estimators
import pytest

from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from tests.conftest import make_tiny_task

SHORT = ["stages.0.epochs=1", "stages.0.batch_size=25", "stages.0.optim.lr=1e-2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two recipes with two seeds each, read back as the benchmark reads them."""
    out, task = tmp_path_factory.mktemp("runs"), make_tiny_task()
    for recipe in ("source_only", "dann"):
        for seed in (0, 1):
            path = out / "tiny" / recipe / f"seed-{seed}"
            Experiment.start(load_recipe(recipe, SHORT), task, seed, path).run()
    folders, found = evaluate_estimators.read_runs([out])
    assert len(folders) == found == 4
    return folders


def test_every_run_selection_and_estimator_gets_a_row_with_the_true_accuracy_of_that_epoch(folders):
    rows = evaluate_estimators.evaluate_estimators(folders)
    assert len(rows) == 4 * 2 * 4
    results = {(result.recipe, result.seed): result for folder in folders for result in [folder.require_result()]}
    for row in rows:
        (chosen,) = (
            one
            for one in results[row["recipe"], row["seed"]].stages[-1].selections
            if str(one.selection) == row["selection"]
        )
        assert row["target_accuracy"] == chosen.target_accuracy
        assert row["holds"] == (row["interval"][0] <= row["target_accuracy"] <= row["interval"][1])


def test_the_summary_is_of_last_epochs_in_points():
    def row(estimated, true, selection="last"):
        return {
            "estimator": "e",
            "selection": selection,
            "estimated_accuracy": estimated,
            "target_accuracy": true,
            "interval": [estimated - 0.1, estimated + 0.1],
            "holds": abs(estimated - true) <= 0.1,
        }

    (line,) = evaluate_estimators.summarise_estimates([row(0.5, 0.6), row(0.9, 0.6), row(0.0, 1.0, "validator:v")])
    assert line["mean_absolute_error"] == pytest.approx(20)
    assert line["worst_error"] == pytest.approx(30)
    assert line["intervals_hold"] == 0.5
    assert line["mean_width"] == pytest.approx(20)
    assert line["n"] == 2


def test_runs_are_compared_with_the_source_only_run_of_their_seed(folders):
    rows = {(row["recipe"], row["seed"]): row for row in evaluate_estimators.collect_alarms(folders)}
    names = {recipe for recipe, _ in rows}
    (adapted,) = (name for name in names if name.startswith("dann"))
    (source_only,) = names - {adapted}
    for seed in (0, 1):
        assert rows[adapted, seed]["source_only_accuracy"] == rows[source_only, seed]["target_accuracy"]
        assert rows[source_only, seed]["source_only_accuracy"] is None
