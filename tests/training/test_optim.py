"""Optimisers from a recipe against plain torch, step by step, and their states in a checkpoint."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.methods import ParameterGroup
from mutualign.recipes import OptimConfig
from mutualign.training.optim import Optimiser, build_optimisers
from tests.training.tiny_runs import make_trainer

CPU = torch.device("cpu")
KINDS = [
    (OptimConfig("adam", lr=0.02), torch.optim.Adam, {}),
    (OptimConfig("adam", lr=0.02, weight_decay=0.1, schedule="cosine"), torch.optim.Adam, {"weight_decay": 0.1}),
    (OptimConfig("adamw", lr=0.02, weight_decay=0.3, schedule="one_cycle"), torch.optim.AdamW, {"weight_decay": 0.3}),
    (OptimConfig("sgd", lr=0.1), torch.optim.SGD, {}),
    (
        OptimConfig("sgd", lr=0.1, momentum=0.9, weight_decay=0.05, schedule="dann_decay"),
        torch.optim.SGD,
        {"momentum": 0.9, "weight_decay": 0.05},
    ),
    (
        OptimConfig("sgd", lr=0.1, momentum=0.8, nesterov=True),
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True},
    ),
]
SCHEDULES = {
    "constant": lambda p: 1.0,
    "one_cycle": lambda p: 0.1 + 4.5 * p if p < 0.2 else (1 - p) / 0.8,
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
    "dann_decay": lambda p: (1 + 10 * p) ** -0.75,
}


def weights():
    torch.manual_seed(0)
    maps = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    return [torch.nn.Parameter(value) for value in (torch.randn(5, 3), maps, torch.tensor(0.7))]


def set_gradients(parameters, step):
    rng = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=rng))


@pytest.mark.parametrize(("config", "kind", "settings"), KINDS, ids=lambda value: getattr(value, "name", None))
def test_steps_are_those_of_plain_torch_under_the_schedule_and_continue_from_a_saved_state(config, kind, settings):
    mine, theirs = weights(), weights()
    optimiser = Optimiser(config, [ParameterGroup(mine[:2]), ParameterGroup(mine[2:], lr_factor=3.0)], CPU)
    plain = kind([{"params": theirs[:2]}, {"params": theirs[2:]}], lr=1.0, foreach=False, **settings)
    for step in range(8):
        if step == 4:  # go on with another optimiser, from the state of this one
            state = {name: value.clone() for name, value in optimiser.state().items()}
            groups = [ParameterGroup(mine[:2]), ParameterGroup(mine[2:], lr_factor=3.0)]
            optimiser = Optimiser(config, groups, CPU)
            optimiser.load(state)
        rate = config.lr * SCHEDULES[config.schedule](step / 8)
        for group, factor in zip(plain.param_groups, (1.0, 3.0), strict=True):
            group["lr"] = rate * factor
        optimiser.set_rate(torch.tensor(step / 8))
        for parameters in (mine, theirs):
            set_gradients(parameters, step)
        optimiser.torch.step()
        plain.step()
        for one, other in zip(mine, theirs, strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-6), step


def test_the_backbones_rate_is_a_fraction_of_the_others_in_every_group():
    method = make_trainer("mani").method
    (optimiser,) = build_optimisers(OptimConfig(lr=0.4, backbone_lr_factor=0.1), method, CPU).values()
    optimiser.set_rate(torch.tensor(0.0))
    rates = {id(weight): group["lr"] for group in optimiser.torch.param_groups for weight in group["params"]}
    trained = {name: weight for name, weight in method.named_parameters() if weight.requires_grad}
    assert len(rates) == len(trained)
    for name, weight in trained.items():
        assert rates[id(weight)] == pytest.approx(0.04 if name.startswith("classifier.features.") else 0.4), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"backbone_lr_factor": -1.0}, "backbone_lr_factor must be above 0"),
        ({"weight_decay": -0.1}, "weight_decay 0 or more"),
        ({"name": "sgd", "momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"momentum": 0.9}, 'momentum and nesterov belong to name = "sgd", not to "adam"'),
        ({"name": "sgd", "nesterov": True}, "nesterov needs a momentum"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**settings)
