"""Verdicts of run folders: what a run is compared with, and that result.json keeps the verdict."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.spec import RunSpec
from mutualign.runs.verdict import fair_baseline, verdict_of
from tests.runs.samples import recipe
from tests.tiny_task import make_tiny_task

DANN = recipe("dann")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A fair baseline of dann, another source-only run, and dann, in that order."""
    out, task = tmp_path_factory.mktemp("verdict"), make_tiny_task()
    other = dataclasses.replace(recipe("source_only", epochs=1), name="a_shorter_one")
    runs = []
    for one in (DANN.source_only(), other, DANN):
        path = RunSpec(one, "tiny", 0).path(out)
        Experiment.start(one, task, 0, path).run()
        runs.append(RunFolder.open(path))
    return runs


def test_a_run_is_compared_with_the_source_only_run_of_its_network_and_length(trained):
    fair, shorter, dann = trained
    assert fair_baseline(dann).path == fair.path.absolute()
    assert fair_baseline(fair) is None
    assert fair_baseline(shorter) is None
    assert dann.result().verdict.compared_with == fair.config().recipe.name


def test_a_source_only_run_on_other_images_is_no_baseline(trained, tmp_path):
    fair, _, dann = trained
    moved = RunSpec(DANN, "tiny", 0).path(tmp_path)
    shutil.copytree(dann.path, moved)
    other = RunSpec(fair.config().recipe, "tiny", 0).path(tmp_path)
    shutil.copytree(fair.path, other)
    assert fair_baseline(RunFolder.open(moved)).path == other.absolute()
    for name in ("config.toml", "result.json"):
        text = (other / name).read_text(encoding="utf-8")
        assert fair.config().data in text
        (other / name).write_text(text.replace(fair.config().data, "other images"), encoding="utf-8")
    assert fair_baseline(RunFolder.open(moved)) is None


def test_a_run_is_compared_with_the_same_one_where_its_folder_is_the_current_one(trained, monkeypatch):
    fair, _, dann = trained
    monkeypatch.chdir(dann.path)
    assert fair_baseline(RunFolder.open(Path())).path == fair.path.absolute()


def test_the_true_gain_is_the_difference_of_the_true_accuracies(trained):
    fair, _, dann = trained
    accuracies = [run.result().stages[-1].selected.target_accuracy for run in (dann, fair)]
    verdict = dann.result().verdict
    assert verdict.true_accuracy == accuracies[0]
    assert verdict.true_gain.value == pytest.approx(accuracies[0] - accuracies[1])
    assert verdict.true_gain.low <= verdict.true_gain.value <= verdict.true_gain.high
    assert verdict == verdict_of(dann)


def test_the_baseline_keeps_network_optimiser_and_length_and_nothing_of_the_method():
    two = recipe("dann", "mani", epochs=3)
    baseline = two.source_only()
    assert baseline.is_source_only
    assert [(one.epochs, one.optim, one.batch_size) for one in baseline.stages] == [
        (one.epochs, one.optim, one.batch_size) for one in two.stages
    ]
    assert baseline.source_only() == baseline
    assert recipe("dann").source_only().name == recipe("mani").source_only().name  # one run serves both


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.toml", "format = 99"),
        ("config.toml", "no toml"),
        ("result.json", "{"),
        ("checkpoints/stage-0-selected-outputs.safetensors", "no tensors"),
        ("checkpoints/review.safetensors", "no tensors"),
    ],
)
def test_a_neighbour_that_cannot_be_read_does_not_cost_a_run_its_verdict(trained, tmp_path, file, content):
    fair, _, dann = trained
    out = shutil.copytree(fair.path.parents[1], tmp_path / "tiny")
    (out / fair.path.parent.name / "seed-0" / file).write_text(content, encoding="utf-8")
    assert verdict_of(RunFolder.open(out / dann.path.parent.name / "seed-0")).compared_with is None
