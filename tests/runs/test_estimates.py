"""Estimates from run folders: which runs go together, and that no target label is among what they are made from."""

from __future__ import annotations

import dataclasses

import pytest

from mutualign.errors import MutualignError
from mutualign.recipes import load_recipe
from mutualign.runs.estimates import estimate_runs
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from tests.conftest import make_tiny_task

SHORT = ["stages.0.epochs=2", "stages.0.batch_size=20", "stages.0.learning_rate=1e-2"]


def trained(path, task, seeds=(0, 1)):
    for seed in seeds:
        Experiment.start(load_recipe("source_only", SHORT), task, seed, path / f"seed-{seed}").run()
    return [RunFolder.open(path / f"seed-{seed}") for seed in seeds]


def test_target_labels_do_not_touch_an_estimate(tmp_path):
    found = {
        name: [run.estimates for run in estimate_runs(trained(tmp_path / name, task))]
        for name, task in (("truth", make_tiny_task()), ("noise", make_tiny_task(target_label_seed=5)))
    }
    assert found["truth"] == found["noise"]


def test_two_seeds_give_a_consensus_and_one_gives_what_is_left(tmp_path, tiny_task):
    both = trained(tmp_path, tiny_task)
    assert [run.best[0] for run in estimate_runs(both)] == ["consensus", "consensus"]
    (alone,) = estimate_runs(both[:1])
    assert alone.estimates["consensus"] is None
    assert alone.estimates["disagreement"] is None
    assert alone.best[0] == "average_thresholded_confidence"


def test_the_epoch_that_is_asked_for_is_the_one_that_is_estimated(tmp_path, tiny_task):
    runs = trained(tmp_path, tiny_task)
    for selection in ("last", "selected"):
        outputs = [run.load_tensors(f"stage-0-{selection}-outputs")[0]["target_logits"].argmax(1) for run in runs]
        agreed = float((outputs[0] == outputs[1]).double().mean())
        assert estimate_runs(runs, selection)[0].estimates["disagreement"].accuracy == agreed


def test_runs_of_different_data_are_refused(tmp_path, tiny_task):
    other = dataclasses.replace(tiny_task, identity="other images")
    runs = [*trained(tmp_path / "a", tiny_task, (0,)), *trained(tmp_path / "b", other, (0,))]
    with pytest.raises(MutualignError, match="different data"):
        estimate_runs(runs)


def test_a_run_that_is_not_complete_is_refused_with_what_to_do(tmp_path, tiny_task):
    Experiment.start(load_recipe("source_only", SHORT), tiny_task, 0, tmp_path / "begun")
    with pytest.raises(MutualignError, match=r"mutualign run --resume .*begun"):
        estimate_runs([RunFolder.open(tmp_path / "begun")])
