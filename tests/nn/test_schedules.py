"""The schedules against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.nn.schedules import LEARNING_RATES, REVERSALS, constant, one_cycle, ramp

PROGRESS = [0.0, 0.1, 0.25, 0.5, 0.9, 1.0]


@pytest.mark.parametrize("p", PROGRESS)
def test_constant_is_one_throughout(p):
    assert float(constant(torch.tensor(p))) == 1


@pytest.mark.parametrize("p", PROGRESS)
def test_the_ramp_has_its_published_closed_form(p):
    assert float(ramp(torch.tensor(p))) == pytest.approx(2 / (1 + math.exp(-10 * p)) - 1, rel=1e-5, abs=1e-7)


def test_the_ramp_begins_at_zero_and_ends_close_to_one():
    assert float(ramp(torch.tensor(0.0))) == 0
    assert 0.9999 < float(ramp(torch.tensor(1.0))) < 1


@pytest.mark.parametrize(("p", "rate"), [(0.0, 0.1), (0.1, 0.55), (0.2, 1.0), (0.6, 0.5), (1.0, 0.0)])
def test_one_cycle_rises_over_a_fifth_and_falls_to_zero(p, rate):
    assert float(one_cycle(torch.tensor(p))) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("schedule", {*REVERSALS.values(), *LEARNING_RATES.values()})
def test_a_schedule_gives_a_0_d_tensor_of_the_kind_of_its_progress(schedule):
    for dtype in (torch.float32, torch.float64):
        value = schedule(torch.tensor(0.5, dtype=dtype))
        assert value.shape == ()
        assert value.dtype == dtype
