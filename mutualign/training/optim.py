"""Optimisers: one per player of a method, built from the recipe's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mutualign.methods import Method, ParameterGroup
from mutualign.nn.schedules import LEARNING_RATES
from mutualign.recipes import OptimConfig


class Optimiser:
    """A torch optimiser with its learning-rate schedule; its state can be saved as flat tensors."""

    def __init__(self, config: OptimConfig, groups: Sequence[ParameterGroup], device: torch.device) -> None:
        self.schedule, self.lr = LEARNING_RATES[config.schedule], config.lr
        self.factors = [group.lr_factor for group in groups]
        settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
        if device.type in ("cpu", "cuda"):
            settings["fused"] = True
        if config.name == "sgd":
            settings |= {"momentum": config.momentum, "nesterov": config.nesterov}
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[config.name]
        self.torch = kind([{"params": list(group.parameters)} for group in groups], **settings)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that this optimiser updates, in order."""
        return [weight for group in self.torch.param_groups for weight in group["params"]]

    def set_rate(self, progress: Tensor) -> None:
        """Set the learning rates for a progress in [0, 1], a tensor on the CPU."""
        rate = self.lr * self.schedule(progress).item()
        for group, factor in zip(self.torch.param_groups, self.factors, strict=True):
            group["lr"] = rate * factor

    def state(self) -> dict[str, Tensor]:
        """Return moments and counters by `NUMBER.NAME`, with the number of the parameter."""
        states = self.torch.state_dict()["state"]
        return {
            f"{number}.{name}": value
            for number, state in states.items()
            for name, value in state.items()
            if value is not None
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        parameters = self.parameters
        state: dict[int, dict[str, Tensor]] = {}
        for key, saved in tensors.items():
            number, _, name = key.partition(".")
            # Fused optimisers index raw memory: moments must have the memory layout of their weights.
            value = saved if saved.dim() == 0 else torch.empty_like(parameters[int(number)]).copy_(saved)
            state.setdefault(int(number), {})[name] = value
        self.torch.load_state_dict({**self.torch.state_dict(), "state": state})


def build_optimisers(config: OptimConfig, method: Method, device: torch.device) -> dict[str, Optimiser]:
    """Build one optimiser per player of the method; the backbone's parameters get their own learning rate."""
    return {
        player: Optimiser(config, _split_backbone(groups, method, config.backbone_lr_factor), device)
        for player, groups in method.parameter_groups().items()
    }


def _split_backbone(groups: Sequence[ParameterGroup], method: Method, factor: float) -> list[ParameterGroup]:
    if factor == 1:
        return list(groups)
    backbone = {id(weight) for weight in method.classifier.features.slower_parameters()}
    split = []
    for group in groups:
        inside = [weight for weight in group.parameters if id(weight) in backbone]
        outside = [weight for weight in group.parameters if id(weight) not in backbone]
        split += [ParameterGroup(inside, group.lr_factor * factor)] if inside else []
        split += [ParameterGroup(outside, group.lr_factor)] if outside else []
    return split
