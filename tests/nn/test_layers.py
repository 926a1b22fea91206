"""Gradient reversal against finite differences; dropout against what a mask of 256ths must do."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.nn.layers import Dropout, GradientReversal, reverse_gradient

# Gradient reversal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strength", [1.0, 0.5, 0.0, torch.tensor(2.0), torch.tensor(0.25)])
def test_reversal_is_the_identity_forward_and_multiplies_the_gradient_by_minus_strength(strength, dtype):
    values = torch.linspace(-3, 3, 12, dtype=dtype).view(3, 4).requires_grad_()
    upstream = torch.linspace(0.5, 2, 12).to(dtype).view(3, 4)
    out = reverse_gradient(values, strength)
    assert torch.equal(out, values)
    assert out.dtype == dtype
    out.backward(upstream)
    assert torch.equal(values.grad, -float(strength) * upstream)


def test_the_strength_is_one_unless_it_is_given():
    values = torch.ones(3, requires_grad=True)
    reverse_gradient(values).sum().backward()
    assert values.grad.tolist() == [-1, -1, -1]


def test_a_strength_tensor_gets_no_gradient():
    values, strength = torch.ones(3, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    reverse_gradient(values, strength).sum().backward()
    assert strength.grad is None
    assert values.grad.tolist() == [-0.5, -0.5, -0.5]


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_a_function_behind_reversal_has_the_gradient_of_its_negation(strength):
    def function(x):
        return (torch.sin(x) * x.exp()).sum()

    values = torch.linspace(-1, 1, 7, dtype=torch.float64, requires_grad=True)
    function(reverse_gradient(values, strength)).backward()

    step, expected = 1e-6, []
    for i in range(7):  # central differences of -strength x function
        nudge = torch.zeros(7, dtype=torch.float64)
        nudge[i] = step
        plain = values.detach()
        expected.append(float(-strength * (function(plain + nudge) - function(plain - nudge)) / (2 * step)))
    assert values.grad.tolist() == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_reversal_flips_the_gradient_for_what_is_before_it_and_keeps_it_for_what_is_after():
    before, after = torch.tensor([2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    (reverse_gradient(5 * before, 0.5) * after).sum().backward()
    assert float(before.grad) == -0.5 * 5 * 3
    assert float(after.grad) == 5 * 2


def test_the_layer_reverses_with_its_strength_and_shows_it():
    layer = GradientReversal(0.25)
    values = torch.ones(2, 3, requires_grad=True)
    layer(values).sum().backward()
    assert torch.equal(values.grad, torch.full((2, 3), -0.25))
    assert "strength=0.25" in repr(layer)
    assert not list(layer.parameters())


# Dropout --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_is_the_identity_in_evaluation_mode_and_with_probability_zero(dtype):
    values = torch.randn(5, 7, dtype=dtype)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)


@pytest.mark.parametrize("p", [0.25, 0.5, 64 / 256, 77 / 256, 0.9, 255 / 256])
@pytest.mark.parametrize("shape", [(1000, 37), (40_001,)])
def test_dropout_keeps_its_share_of_values_and_scales_them_exactly(p, shape):
    torch.manual_seed(0)
    values = torch.rand(shape, dtype=torch.float64) + 1
    out = Dropout(p)(values)
    kept = out != 0
    dropped = round(p * 256)  # of 256
    assert torch.equal(out[kept], values[kept] * (256 / (256 - dropped)))
    n, q = values.numel(), (256 - dropped) / 256
    assert abs(int(kept.sum()) - n * q) < 5 * math.sqrt(n * q * (1 - q))


def test_the_published_probabilities_are_exact():
    assert "p=0.25" in repr(Dropout(0.25))
    assert "p=0.5" in repr(Dropout(0.5))


def test_each_of_the_eight_values_that_share_a_draw_is_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(20_000, 8)) > 0).double()
    both = kept.T @ kept / len(kept)  # 1/2 on the diagonal, 1/4 off it
    expected = torch.full((8, 8), 0.25, dtype=torch.float64).fill_diagonal_(0.5)
    bound = 5 * math.sqrt(0.25 / len(kept))  # 0.25 bounds q (1 - q)
    assert (both - expected).abs().max() < bound


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63])
def test_any_number_of_values_can_be_dropped_out(size):
    out = Dropout(0.5)(torch.ones(size))
    assert out.shape == (size,)
    assert set(out.tolist()) <= {0.0, 2.0}


def test_the_gradient_of_dropout_is_its_mask_times_its_scale():
    torch.manual_seed(0)
    values = torch.full((50, 3), 4.0, requires_grad=True)
    out = Dropout(0.25)(values)
    out.backward(torch.full((50, 3), 3.0))
    mask = (out != 0).float()
    assert 0 < int(mask.sum()) < 150
    assert torch.allclose(values.grad, 3 * mask * (256 / 192), rtol=1e-6)


@pytest.mark.parametrize("p", [-0.001, -1.0, 0.999, 1.0, 1.5, float("nan")])
def test_a_probability_that_cannot_be_kept_is_refused(p):
    with pytest.raises(ValueError, match="dropout probability must be in"):
        Dropout(p)


def test_torchs_seed_repeats_dropout():
    layer, values, out = Dropout(0.5), torch.ones(100), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        out.append(layer(values))
    assert torch.equal(out[0], out[1])
    assert not torch.equal(out[0], out[2])


def test_dropout_keeps_bf16_and_scales_within_its_rounding():
    torch.manual_seed(0)
    out = Dropout(0.25)(torch.ones(1000, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert out[out != 0].float().tolist() == pytest.approx([4 / 3] * int((out != 0).sum()), rel=2**-8)
