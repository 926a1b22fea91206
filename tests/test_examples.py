"""Examples that users copy: those in docstrings, and the Python of docs/guides/own-loop.md."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mutualign

ROOT = Path(__file__).parents[1]
LOSSES, ESTIMATOR, RUN = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "guides" / "own-loop.md").read_text(encoding="utf-8"), re.DOTALL
)
WITH_EXAMPLES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for path in (ROOT / "mutualign").rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


def test_examples_in_docstrings_print_what_they_show():
    assert "mutualign.nn.layers" in WITH_EXAMPLES
    for name in WITH_EXAMPLES:
        failed, attempted = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch})
        assert (failed, attempted > 0) == (0, True), name


@pytest.mark.parametrize("name", mutualign.__all__)
def test_every_public_name_has_an_example_and_a_place_in_the_reference(name):
    assert ">>>" in inspect.getdoc(getattr(mutualign, name))
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md")]
    assert sum(len(re.findall(rf"^::: mutualign\.{name}$", page, re.MULTILINE)) for page in pages) == 1


def test_the_losses_of_the_guide_train_critic_and_features():
    source_features, target_features = torch.rand(2, 20, 8).requires_grad_()
    critic = nn.Linear(16, 1)
    names = {
        "discriminator": nn.Linear(8, 1),
        "teacher": nn.Linear(5, 10),
        "critic": lambda a, b: critic(torch.cat([a, b], dim=1)).squeeze(1),
        "source_features": source_features,
        "target_features": target_features,
        "source_labels": torch.arange(20) % 10,
        "target_images": torch.randn(20, 5) * 100,  # large, so that the teacher is confident
    }
    exec(LOSSES, names)  # noqa: S102
    assert names["pairs"].valid.any()
    names["mi_loss"].backward()
    assert critic.weight.grad.abs().sum() > 0


def test_the_run_of_the_guide_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = '"mani", overrides=["backbone=mlp", "stages.0.epochs=1", "stages.1.epochs=1"]'
    assert '"mani"' in RUN
    names: dict = {}
    exec(RUN.replace('"mani"', short), names)  # noqa: S102
    assert names["done"].result.stages[1].method == "mani"
    assert (names["done"].path / "result.json").is_file()
    assert "target_accuracy" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::UserWarning")  # alarms: the data is random
def test_the_estimator_of_the_guide_fits_and_predicts():
    generator = np.random.default_rng(0)
    x = generator.integers(256, size=(60, 12, 12, 3), dtype=np.uint8)
    short = 'DomainAdapter("fast", overrides=("stages.0.epochs=1", "stages.0.epoch_steps=1"))'
    names = {"X_source": x[:30], "y_source": np.arange(30) % 3, "X_target": x[30:], "X_new": x[:7]}
    exec(ESTIMATOR.replace('DomainAdapter("fast")', short), names)  # noqa: S102
    assert names["labels"].shape == (7,)
    assert names["probabilities"].shape == (7, 3)
    assert len(names["features"]) == 7
