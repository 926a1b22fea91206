"""Schedules: functions of the progress of a stage, a 0-d tensor in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def constant(progress: Tensor) -> Tensor:
    """1 from the first step to the last: the published experiment's learning rate and gradient reversal."""
    return torch.ones_like(progress)


def ramp(progress: Tensor) -> Tensor:
    """2 / (1 + exp(-10 p)) - 1, from 0 to almost 1 (Ganin et al., JMLR 2016, section 5.2.2)."""
    return 2 * torch.sigmoid(10 * progress) - 1


def one_cycle(progress: Tensor) -> Tensor:
    """Up from 0.1 to 1 over the first fifth, then down to 0, both linear (after Smith and Topin, 2019)."""
    return torch.minimum(0.1 + 4.5 * progress, (1 - progress) / 0.8)


Schedule = Callable[[Tensor], Tensor]
REVERSALS: dict[str, Schedule] = {"constant": constant, "ramp": ramp}
LEARNING_RATES: dict[str, Schedule] = {"constant": constant, "one_cycle": one_cycle}
