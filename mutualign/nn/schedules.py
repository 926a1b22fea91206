"""Schedules: functions of a stage's progress, a 0-d tensor in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def constant(progress: Tensor) -> Tensor:
    """1 throughout: the published experiment's learning rate and reversal strength."""
    return torch.ones_like(progress)


def ramp(progress: Tensor) -> Tensor:
    """2 / (1 + exp(-10 p)) - 1, from 0 to almost 1 (Ganin et al., JMLR 2016, section 5.2.2)."""
    return 2 * torch.sigmoid(10 * progress) - 1


def one_cycle(progress: Tensor) -> Tensor:
    """Linear warm-up from 0.1 to 1 over the first fifth, then linear decay to 0 (after Smith and Topin, 2019)."""
    return torch.minimum(0.1 + 4.5 * progress, (1 - progress) / 0.8)


def cosine(progress: Tensor) -> Tensor:
    """(1 + cos(pi p)) / 2, from 1 to 0 (Loshchilov and Hutter, ICLR 2017, eq. 5, one cycle)."""
    return (1 + torch.cos(math.pi * progress)) / 2


def dann_decay(progress: Tensor) -> Tensor:
    """1 / (1 + 10 p)^0.75, from 1 to 0.17 (Ganin et al., JMLR 2016, section 5.2.2)."""
    return (1 + 10 * progress) ** -0.75


Schedule = Callable[[Tensor], Tensor]
REVERSALS: dict[str, Schedule] = {"constant": constant, "ramp": ramp}
LEARNING_RATES: dict[str, Schedule] = {
    "constant": constant,
    "one_cycle": one_cycle,
    "cosine": cosine,
    "dann_decay": dann_decay,
}
