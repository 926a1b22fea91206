"""The examples that users copy: those of the docstrings and those of the README."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import mutualign.nn.layers
import mutualign.nn.losses

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize("module", [mutualign.nn.layers, mutualign.nn.losses])
def test_the_examples_in_docstrings_give_what_they_say(module):
    failed, attempted = doctest.testmod(module)
    assert (failed, attempted > 0) == (0, True)


def test_the_readme_losses_train_critic_and_features_in_an_own_loop():
    source_features, target_features = torch.rand(2, 20, 8).requires_grad_()
    critic = nn.Linear(16, 1)
    names = {
        "discriminator": nn.Linear(8, 1),
        "teacher": nn.Linear(5, 10),
        "critic": lambda a, b: critic(torch.cat([a, b], dim=1)).squeeze(1),
        "source_features": source_features,
        "target_features": target_features,
        "source_labels": torch.arange(20) % 10,
        "target_images": torch.randn(20, 5) * 100,  # so that the teacher is confident
    }
    exec(BLOCKS[0], names)  # noqa: S102
    assert names["pairs"].valid.any()
    names["mi_loss"].backward()
    assert critic.weight.grad.abs().sum() > 0


def test_the_readme_experiment_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = 'load_recipe("mani", ["stages.0.epochs=1", "stages.1.epochs=1"])'
    assert 'load_recipe("mani")' in BLOCKS[1]
    names: dict = {}
    exec(BLOCKS[1].replace('load_recipe("mani")', short), names)  # noqa: S102
    assert names["result"]["stages"][1]["method"] == "mani"
    assert (tmp_path / "runs" / "first" / "result.json").is_file()
