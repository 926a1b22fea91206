"""Defects put into real training: each raises the alarm that names it, and healthy training raises none."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from mutualign.data.datasets import find_task
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset
from mutualign.methods import dann, mutual_align
from mutualign.nn.ema import EMATeacher
from mutualign.nn.heads import DomainDiscriminator
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment, Observer
from mutualign.runs.folder import RunFolder

SHORT = ["stages.0.epochs=1", "stages.0.epoch_steps=60", "stages.0.batch_size=32"]
FIRST = ["stages.0.epochs=1", "stages.0.epoch_steps=30", "stages.0.batch_size=32"]
DANN = ["stages.0.epochs=1", "stages.0.batch_size=25", "stages.0.optim.lr=3e-4", "stages.0.options.reversal=ramp"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Task:
    return find_task("digits").load(tmp_path_factory.mktemp("no-data"))


@pytest.fixture(scope="module")
def few(digits) -> Task:
    """A fifth of the training images: enough for a defect to show at the first epoch's end."""
    rows = torch.arange(0, len(digits.source_train), 5)
    return replace(digits, source_train=digits.source_train.subset(rows), target_train=digits.target_train.subset(rows))


class Alarms(Observer):
    def __init__(self) -> None:
        self.shown: list[str] = []

    def alarm(self, alarm):
        self.shown.append(alarm.name)


@pytest.fixture
def alarms_of(tmp_path):
    """Train a recipe on a task and return the names of its alarms, which are also shown and kept in the folder."""

    def train(recipe: str, task: Task, *overrides: str) -> set[str]:
        observer = Alarms()
        experiment = Experiment.start(load_recipe(recipe, overrides), task, 0, tmp_path / "run", observer=observer)
        result = experiment.run()
        names = [alarm.name for alarm in result.alarms]
        assert sorted(set(observer.shown)) == sorted(set(names))
        assert RunFolder.open(tmp_path / "run").result().alarms == result.alarms
        return set(names)

    return train


@pytest.fixture(scope="module")
def source_only(tmp_path_factory, few) -> RunFolder:
    """The source-only run of `fast`. Read only."""
    path = tmp_path_factory.mktemp("runs") / "digits" / "source_only" / "seed-0"
    Experiment.start(load_recipe("fast", SHORT).source_only(), few, 0, path).run()
    return RunFolder.open(path)


def test_healthy_training_raises_no_alarm_but_that_source_only_does_not_carry_over(alarms_of, few, source_only):
    assert alarms_of("fast", few, *SHORT) == set()
    assert [alarm.name for alarm in source_only.result().alarms] == ["low target accuracy"]


def test_a_loss_whose_weight_is_zero_at_first_is_not_dead(alarms_of, tiny_task):
    late = ("stages.0.options.neighbour_start=0.9", "stages.0.options.neighbour_ramp=0.1")
    overrides = ("stages.0.method=neighbour_information", "stages.0.epochs=2", "stages.0.epoch_steps=3", *late)
    assert "no adaptation gradient" not in alarms_of("source_only", tiny_task, *overrides, "stages.0.batch_size=25")


def test_a_softmax_over_one_output_has_no_gradient(alarms_of, tiny_task, monkeypatch):
    def saturated(self, features):
        return self.layers(features).softmax(1).squeeze(1)

    monkeypatch.setattr(DomainDiscriminator, "forward", saturated)
    assert "no adaptation gradient" in alarms_of("dann", tiny_task, *DANN)


@pytest.mark.parametrize("fault", ["wrong sign", "missing"])
def test_a_wrong_or_missing_reversal_is_seen(alarms_of, tiny_task, monkeypatch, fault):
    right = dann.reverse_gradient
    wrong = {"wrong sign": lambda values, s: right(values, -s), "missing": lambda values, s: values.view_as(values)}
    monkeypatch.setattr(dann, "reverse_gradient", wrong[fault])
    assert "reversal with the wrong sign" in alarms_of("dann", tiny_task, *DANN)


@pytest.mark.parametrize("recipe", ["fast", "mani"])
def test_a_teacher_that_is_never_updated_is_seen(alarms_of, tiny_task, monkeypatch, recipe):
    monkeypatch.setattr(EMATeacher, "update", lambda self, student: None)
    stages = {"fast": 1, "mani": 2}[recipe]
    short = [f"stages.{stage}.{key}" for stage in range(stages) for key in ("epochs=2", "batch_size=25")]
    assert "teacher does not move" in alarms_of(recipe, tiny_task, *short, "stages.0.epoch_steps=2")


def test_pseudo_labels_of_a_single_class_are_seen(alarms_of, few, monkeypatch):
    def collapsed(self, images):
        return torch.tensor([9.0] + [0.0] * 9).repeat(len(images), 1)

    monkeypatch.setattr(EMATeacher, "forward", collapsed)
    assert "predicted classes collapsed" in alarms_of("fast", few, *FIRST)


def test_shuffled_source_labels_are_seen(alarms_of, few):
    order = torch.randperm(len(few.source_train), generator=torch.Generator().manual_seed(0))
    shuffled = LabelledImages(few.source_train.images, few.source_train.labels[order])
    assert "source is not learnt" in alarms_of("fast", replace(few, source_train=shuffled), *FIRST)


@pytest.mark.parametrize("kind", ["the same images", "other images of the same kind"])
def test_identical_domains_are_seen(alarms_of, digits, kind):
    source, labels = digits.source_train, digits.source_train.labels
    rows = torch.arange(len(source))
    ours, theirs = (rows, rows) if kind == "the same images" else (rows[::2], rows[1::2])
    task = replace(
        digits,
        source_train=source.subset(ours),
        target_train=TargetDataset(source.images.subset(theirs), labels[theirs]),
    )
    assert "identical domains" in alarms_of(
        "source_only", task, "stages.0.epochs=1", "stages.0.batch_size=500", "backbone=mlp"
    )


def test_a_target_that_lacks_half_of_the_classes_is_seen(alarms_of, digits, few):
    rows = torch.arange(1, len(digits.source_train), 5)  # other digits than those of the source
    images, labels = digits.source_train.images.subset(rows), digits.source_train.labels[rows]
    half = torch.nonzero(labels < 5)[:, 0]
    task = replace(few, target_train=TargetDataset(images.subset(half), labels[half]))
    exact = ("stages.0.epoch_steps=100", "backbone=two_block_cnn", "stages.0.optim.lr=3e-3")
    found = alarms_of("source_only", task, *FIRST, *exact)
    assert "classes missing among the predictions" in found


def test_adaptation_that_does_harm_is_seen_next_to_a_source_only_run(tmp_path, few, source_only, monkeypatch):
    shutil.copytree(source_only.path, tmp_path / "digits" / "source_only" / "seed-0")

    def noise(self, batch):
        return torch.rand_like(batch.images)  # the student never sees the images that its labels belong to

    monkeypatch.setattr(mutual_align.MutualAlign, "strong_views", noise)
    harmed = Experiment.start(load_recipe("fast", SHORT), few, 0, tmp_path / "digits" / "fast" / "seed-0").run()
    assert harmed.compared_with == source_only.config().recipe.name
    assert "negative transfer" in {alarm.name for alarm in harmed.alarms}
