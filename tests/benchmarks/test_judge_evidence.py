"""The benchmark of estimates and alarms, on tiny runs whose folders it reads."""

from __future__ import annotations

import judge_evidence as evidence
import pytest

from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder

SHORT = ["stages.0.epochs=2", "stages.0.batch_size=20", "stages.0.learning_rate=1e-2"]


@pytest.fixture
def folders(tmp_path, tiny_task):
    for recipe in ("source_only", "dann"):
        for seed in (0, 1):
            path = tmp_path / "tiny" / recipe / f"seed-{seed}"
            Experiment.start(load_recipe(recipe, SHORT), tiny_task, seed, path).run()
    return [RunFolder.open(path.parent) for path in sorted(tmp_path.glob("*/*/*/config.toml"))]


def test_every_run_selection_and_estimator_gets_a_row_with_the_true_accuracy_of_that_epoch(folders):
    rows = evidence.judge_estimates(folders)
    assert len(rows) == 4 * 2 * 4
    for row in rows:
        (folder,) = (f for f in folders if f.path.parts[-2:] == (row["recipe"], f"seed-{row['seed']}"))
        chosen = folder.result()["stages"][-1]["selections"][row["selection"]]
        assert row["target_accuracy"] == chosen["target_accuracy"]
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

    (line,) = evidence.summarise_estimates([row(0.5, 0.6), row(0.9, 0.6), row(0.0, 1.0, "validator:v")])
    assert line["mean_absolute_error"] == pytest.approx(20)
    assert line["worst_error"] == pytest.approx(30)
    assert line["intervals_hold"] == 0.5
    assert line["mean_width"] == pytest.approx(20)
    assert line["n"] == 2


def test_alarms_are_those_of_the_results_and_source_only_has_nothing_to_be_held_against(folders):
    for row, folder in zip(evidence.judge_alarms(folders), folders, strict=True):
        told = [alarm["name"] for alarm in folder.result()["alarms"] if alarm["name"] != "identical domains"]
        assert sorted(set(row["alarms"]) - {"negative transfer"}) == sorted(set(told) - {"negative transfer"})
        assert (row["source_only_accuracy"] is None) == (row["recipe"] == "source_only")
