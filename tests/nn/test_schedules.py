"""The schedules against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.nn.schedules import LEARNING_RATES, REVERSALS

FORMS = {
    "constant": lambda p: 1.0,
    "ramp": lambda p: 2 / (1 + math.exp(-10 * p)) - 1,
    "one_cycle": lambda p: 0.1 + 4.5 * p if p <= 0.2 else (1 - p) / 0.8,
    "cosine": lambda p: math.cos(math.pi * p / 2) ** 2,
    "dann_decay": lambda p: 1 / (1 + 10 * p) ** 0.75,
}
SCHEDULES = LEARNING_RATES | REVERSALS


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_has_its_closed_form_and_returns_a_0_d_tensor_of_its_progress_type(name):
    for dtype in (torch.float32, torch.float64):
        for p in (0.0, 0.1, 0.2, 0.25, 0.5, 0.9, 1.0):
            value = SCHEDULES[name](torch.tensor(p, dtype=dtype))
            assert value.item() == pytest.approx(FORMS[name](p), rel=1e-5, abs=1e-6)
            assert (value.shape, value.dtype) == ((), dtype)
