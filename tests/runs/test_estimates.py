"""Estimates from run folders: which runs belong together, and that no target label is used."""

from __future__ import annotations

import pytest
import tomli_w

from mutualign.errors import MutualignError
from mutualign.io.text import parse_toml
from mutualign.runs.estimates import estimate_runs
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from tests.runs.samples import SPEC, config, recipe
from tests.tiny_task import make_tiny_task


def test_target_labels_do_not_touch_an_estimate(seeds, tmp_path):
    task = make_tiny_task(target_label_seed=5)
    Experiment.start(recipe("source_only"), task, 0, tmp_path / "noise").run()
    noise = RunFolder.open(tmp_path / "noise")
    assert noise.metrics()[-1].target_accuracy != seeds[0].metrics()[-1].target_accuracy
    ours, theirs = (estimate_runs([run])[0] for run in (noise, seeds[0]))
    assert (ours.estimates, ours.bound) == (theirs.estimates, theirs.bound)


def test_two_seeds_give_a_consensus_and_one_gives_what_a_single_run_allows(seeds):
    assert [run.best[0] for run in estimate_runs(seeds)] == ["consensus", "consensus"]
    (alone,) = estimate_runs(seeds[:1])
    assert alone.estimates["consensus"] is None
    assert alone.estimates["disagreement"] is None
    assert alone.best[0] == "average_thresholded_confidence"


@pytest.mark.parametrize("which", ["last", "selected"])
def test_the_epoch_that_is_asked_for_is_the_one_that_is_estimated(seeds, which):
    outputs = [run.checkpoints.load_outputs(0, which)[0]["target_logits"].argmax(1) for run in seeds]
    agreed = float((outputs[0] == outputs[1]).double().mean())
    assert estimate_runs(seeds, which)[0].estimates["disagreement"].accuracy == agreed


def test_the_bound_is_computed_only_when_it_is_asked_for(seeds, monkeypatch):
    asked = []
    monkeypatch.setattr("mutualign.runs.estimates.bound_accuracy", lambda outputs: float(asked.append(outputs) or 0.5))
    (found,) = estimate_runs(seeds[:1])
    assert found.best
    assert asked == []
    assert [found.bound, found.bound] == [0.5, 0.5]
    assert len(asked) == 1


def test_runs_on_different_data_are_refused_and_the_odd_one_is_named_by_path(seeds, copied):
    path = copied.path / "config.toml"
    path.write_text(tomli_w.dumps(parse_toml(path.read_text(encoding="utf-8")) | {"data": "other"}), encoding="utf-8")
    with pytest.raises(
        MutualignError, match=rf"different data.*\n  {copied.path}\n    other\n  {seeds[0].path} and 1 more\n"
    ):
        estimate_runs([*seeds, copied])


def test_a_run_that_is_not_complete_is_refused_with_a_hint(tmp_path):
    begun = RunFolder.create(tmp_path / "begun", config(SPEC))
    with pytest.raises(MutualignError, match=r"mutualign run --resume .*begun"):
        estimate_runs([begun])
