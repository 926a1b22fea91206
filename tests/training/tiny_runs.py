"""Tiny training runs, which the tests of methods, optimisers, the loop and resumes share."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from mutualign.data.types import ImageShape, LabelledImages, UnlabelledImages
from mutualign.methods import METHODS
from mutualign.recipes import Recipe, parse_recipe
from mutualign.training.batches import Batches
from mutualign.training.callbacks import Callbacks, Checkpoint, CheckpointPolicy
from mutualign.training.distributed import make_fabric
from mutualign.training.loop import StageTrainer, Stopped, train
from mutualign.training.setup import build_classifier, build_method

SHAPE, CLASSES = ImageShape(3, 12, 12), 3
N_SOURCE, N_TARGET, BATCH = 22, 15, 8
EPOCH = 3  # steps: 22 source images in batches of 8, 8 and 6
EAGER = {"threshold": 0.35}  # a third is chance: pseudo-labels from the first step
OPTIONS: dict[str, dict[str, Any]] = {"mani": EAGER, "mutual_align": EAGER}


def stripes(n: int, seed: int) -> LabelledImages:
    """Three classes of noisy images, by the third of the rows that is bright."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    pixels = torch.randint(0, 100, (n, 12, 12, 3), dtype=torch.uint8, generator=rng)
    for row, label in enumerate(labels.tolist()):
        pixels[row, 4 * label : 4 * label + 4] += 120
    return LabelledImages(UnlabelledImages(pixels), labels)


SOURCE, TARGET = stripes(N_SOURCE, 0), stripes(N_TARGET, 1).images


def make_recipe(
    *methods: str, epochs: int = 2, precision: str = "float32", backbone: str = "mani_cnn", **optim: Any
) -> Recipe:
    stages = [
        {"method": name, "epochs": epochs, "batch_size": BATCH, "optim": {"lr": 3e-3} | optim}
        | {"options": OPTIONS.get(name, {})}
        for name in methods
    ]
    return parse_recipe({"name": "t", "precision": precision, "backbone": backbone, "stages": stages}, "test")


def make_trainer(
    name: str, seed: int = 0, index: int = 0, backbone: str = "mani_cnn", precision: str = "float32", **optim: Any
) -> StageTrainer:
    recipe = make_recipe(name, backbone=backbone, **optim)
    torch.manual_seed(1)
    method = build_method(recipe.stages[0], build_classifier(recipe, SHAPE, CLASSES))
    source, target = SOURCE if method.uses_source else None, TARGET if method.uses_target else None
    batches = Batches(source, target, 3, BATCH, seed, index)
    return StageTrainer(index, recipe.stages[0], seed, method, batches, make_fabric(precision, "cpu"))


class MemoryStore:
    """Keeps the last checkpoint in memory."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.info: dict[str, Any] = {}

    def save_resumable(self, tensors: Mapping[str, torch.Tensor], info: Mapping[str, Any], keep: int = 2) -> None:
        self.tensors, self.info = {name: value.clone() for name, value in tensors.items()}, dict(info)

    def load_resumable(self) -> Checkpoint | None:
        return Checkpoint(dict(self.tensors), self.info, []) if self.info else None


class Recorder:
    """Callbacks that record the calls; they stop the loop after some steps, or crash there."""

    def __init__(self, stop_after: int | None = None, crash_after: int | None = None) -> None:
        self.stop_after, self.crash_after = stop_after, crash_after
        self.steps: list[tuple[int, int, int]] = []
        self.epochs: list[tuple[int, int, dict[str, float]]] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_step(self, stage, done, total):
        self.steps.append((stage, done, total))
        if len(self.steps) == self.crash_after:
            raise KeyboardInterrupt

    def on_epoch(self, method, epoch):
        self.epochs.append((epoch.stage, epoch.number, epoch.means))
        self.weights.append(copy.deepcopy(method.classifier.state_dict()))
        torch.rand(3)  # an evaluation may draw random numbers

    @property
    def callbacks(self) -> Callbacks:
        return Callbacks(self.on_step, self.on_epoch, lambda: len(self.steps) == self.stop_after)


def go(recipe: Recipe, store: Any, recorder: Recorder | None = None, seed: int = 0, every: float = 60.0) -> Recorder:
    """Train to the end, to the recorder's stop, or to its crash."""
    recorder = recorder or Recorder()
    fabric, policy = make_fabric(recipe.precision, "cpu"), CheckpointPolicy(every)
    train(recipe, SOURCE, TARGET, SHAPE, CLASSES, seed, store, fabric, recorder.callbacks, policy)
    return recorder


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """The same tensors, bit for bit."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def assert_resumes_after_every_step(recipe: Recipe) -> MemoryStore:
    """A run that is stopped after each of its steps ends as one that is not: state and epochs, bit for bit."""
    whole, stopped, epochs = MemoryStore(), MemoryStore(), []
    expected = go(recipe, whole)
    for _ in expected.steps:
        recorder = Recorder(stop_after=1)
        with pytest.raises(Stopped):
            go(recipe, stopped, recorder)
        assert len(recorder.steps) == 1
        epochs += recorder.epochs
    assert go(recipe, stopped).steps == []  # nothing is left to do
    assert epochs == expected.epochs
    assert_same(stopped.tensors, whole.tensors)
    return whole


def has_own_forward(name: str) -> bool:
    """Whether a method computes its losses in `forward`, and does not override `updates`."""
    return "updates" not in vars(METHODS[name].method)
