"""Gradient reversal against finite differences; dropout against a mask of 256ths; both under torch's transforms."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from mutualign.nn.layers import Dropout, GradientReversal, reverse_gradient

# Gradient reversal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strength", [1.0, 0.5, 0.0, torch.tensor(2.0, requires_grad=True)])
def test_reversal_is_the_identity_forward_and_multiplies_the_gradient_by_minus_strength(strength, dtype):
    values = torch.linspace(-3, 3, 12).to(dtype).view(3, 4).requires_grad_()
    upstream = torch.linspace(0.5, 2, 12).to(dtype).view(3, 4)
    out = reverse_gradient(values, strength)
    assert torch.equal(out, values)
    assert out.dtype == dtype
    out.backward(upstream)
    assert torch.equal(values.grad, -float(torch.as_tensor(strength).detach()) * upstream)
    assert getattr(strength, "grad", None) is None  # the strength is not trained


def test_a_function_behind_reversal_has_the_gradient_of_its_negation_and_what_follows_keeps_its_own():
    def function(x):
        return (torch.sin(x) * x.exp()).sum()

    values = torch.linspace(-1, 1, 7, dtype=torch.float64, requires_grad=True)
    after = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (function(reverse_gradient(values, 0.3)) * after).backward()
    step, expected = 1e-6, []
    for i in range(7):  # central differences of -0.3 x 2 x function
        nudge = torch.zeros(7, dtype=torch.float64)
        nudge[i] = step
        plain = values.detach()
        expected.append(float(-0.6 * (function(plain + nudge) - function(plain - nudge)) / (2 * step)))
    assert values.grad.tolist() == pytest.approx(expected, rel=1e-8, abs=1e-9)
    assert after.grad.item() == pytest.approx(function(values).item())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's forward mode calls it
def test_reversal_works_under_grad_vmap_jvp_and_hessian():
    values = torch.linspace(0.5, 2, 4)

    def cubed(x, strength=0.5):
        return (reverse_gradient(x, strength) ** 3).sum()

    assert torch.allclose(torch.func.grad(cubed)(values), -0.5 * 3 * values**2)
    rows, strengths = torch.stack([values, 2 * values]), torch.tensor([1.0, 0.25])
    found = torch.func.vmap(torch.func.grad(cubed))(rows, strengths)
    assert torch.allclose(found, -strengths[:, None] * 3 * rows**2)
    out, tangent = torch.func.jvp(lambda x: reverse_gradient(x, 0.5), (values,), (torch.ones(4),))
    assert torch.equal(out, values)
    assert torch.allclose(tangent, torch.full((4,), -0.5))
    assert torch.allclose(torch.func.hessian(cubed)(values), torch.diag(0.25 * 6 * values))


@pytest.mark.parametrize("follower", [nn.ReLU(inplace=True), nn.Dropout(0.0, inplace=True)])
def test_layers_that_work_in_place_may_follow(follower):
    for layer in (GradientReversal(0.5), Dropout(0.5)):
        values = torch.ones(64, requires_grad=True)
        out = layer(values * 1)
        kept = out.detach().clone()
        follower(out).sum().backward()
        scale = -0.5 if isinstance(layer, GradientReversal) else kept
        assert torch.equal(values.grad, torch.ones(64) * scale)


def test_the_layer_has_a_strength_that_may_change_and_nothing_in_its_state():
    layer = GradientReversal(0.25)
    assert "strength=0.25" in repr(layer)
    layer.strength = 0.75
    values = torch.ones(2, 3, requires_grad=True)
    layer(values).sum().backward()
    assert torch.equal(values.grad, torch.full((2, 3), -0.75))
    assert not list(layer.parameters())
    assert not layer.state_dict()


def test_a_new_strength_does_not_compile_again():
    graphs, layer = [], GradientReversal()
    compiled = torch.compile(layer, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    try:
        for strength in (1.0, 0.5, 0.25, 0.125):
            layer.strength = strength
            values = torch.ones(3, requires_grad=True)
            compiled(values).sum().backward()
            assert values.grad.tolist() == [-strength] * 3
        assert len(graphs) == 1
    finally:
        torch._dynamo.reset()


def test_layers_work_where_float64_is_the_default():
    torch.set_default_dtype(torch.float64)
    try:
        for dtype in (torch.float64, torch.float32):
            values = torch.ones(256, dtype=dtype, requires_grad=True)
            out = Dropout(0.5)(GradientReversal(0.5)(values))
            out.sum().backward()
            assert out.dtype == values.grad.dtype == dtype
            assert torch.equal(values.grad, -0.5 * out)
    finally:
        torch.set_default_dtype(torch.float32)


SCRIPTED = """
import warnings
import torch
from mutualign.nn.layers import Dropout, GradientReversal, reverse_gradient
from mutualign.nn.losses import jsd_mutual_information
warnings.simplefilter("ignore")  # torch.jit.script is deprecated
net = torch.jit.script(torch.nn.Sequential(GradientReversal(0.5), Dropout(0.25)))
values = torch.ones(1000, requires_grad=True)
out = net(values)
out.sum().backward()
assert torch.equal(values.grad, -0.5 * out.detach())
assert abs(float((out > 0).float().mean()) - 0.75) < 0.1
assert torch.equal(net.eval()(values), values)
assert torch.equal(torch.jit.script(reverse_gradient)(values, 0.5), values)
try:
    jsd_mutual_information(torch.zeros(64, 1), torch.zeros(64, 1), torch.ones(64, dtype=torch.bool))
except ValueError as error:
    print(error)
"""


def test_layers_can_be_scripted_and_losses_check_shapes_without_a_type_checker():
    done = subprocess.run([sys.executable, "-c", SCRIPTED], capture_output=True, text=True, check=False)
    assert done.stdout == "jsd_mutual_information: joint has shape [64, 1], expected [pairs]\n", done.stderr


# Dropout --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_is_the_identity_in_evaluation_mode_and_with_probability_zero(dtype):
    values = torch.randn(5, 7, dtype=dtype)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)


@pytest.mark.parametrize("p", [0.25, 77 / 256, 0.9, 255 / 256])
def test_dropout_keeps_its_share_of_values_and_scales_them_and_their_gradients_exactly(p):
    torch.manual_seed(0)
    values = (torch.rand((1000, 37), dtype=torch.float64) + 1).requires_grad_()
    out = Dropout(p)(values)
    kept = out != 0
    dropped = round(p * 256)  # of 256
    assert torch.equal(out[kept], values[kept] * (256 / (256 - dropped)))
    n, q = values.numel(), (256 - dropped) / 256
    assert abs(int(kept.sum()) - n * q) < 5 * math.sqrt(n * q * (1 - q))
    out.backward(torch.full_like(out, 3.0))
    assert torch.allclose(values.grad, 3 * kept.double() * (256 / (256 - dropped)), rtol=1e-12)
    assert f"p={dropped / 256}" in repr(Dropout(p))


def test_each_of_the_eight_values_that_share_a_draw_is_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(20_000, 8)) > 0).double()
    both = kept.T @ kept / len(kept)  # 1/2 on the diagonal, 1/4 off it
    expected = torch.full((8, 8), 0.25, dtype=torch.float64).fill_diagonal_(0.5)
    bound = 5 * math.sqrt(0.25 / len(kept))  # 0.25 bounds q (1 - q)
    assert (both - expected).abs().max() < bound


def test_any_number_of_values_can_be_dropped_out_and_torchs_seed_repeats_it():
    for size in (0, 1, 7, 8, 9, 63):
        out = Dropout(0.5)(torch.ones(size))
        assert out.shape == (size,)
        assert set(out.tolist()) <= {0.0, 2.0}
    out = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        out.append(Dropout(0.5)(torch.ones(100, dtype=torch.bfloat16)))
    assert torch.equal(out[0], out[1])
    assert not torch.equal(out[0], out[2])
    assert out[0].dtype == torch.bfloat16


@pytest.mark.parametrize("p", [-0.001, 0.999, 1.5, float("nan")])
def test_a_probability_that_is_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match="dropout probability must be in"):
        Dropout(p)


def test_dropout_under_vmap_draws_as_vmap_is_asked_to():
    rows, dropout = torch.ones(2, 256), Dropout(0.5)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(dropout)(rows)
    same, different = (torch.func.vmap(dropout, randomness=how)(rows) for how in ("same", "different"))
    assert torch.equal(same[0], same[1])
    assert not torch.equal(different[0], different[1])
    torch.manual_seed(0)
    mask = dropout(torch.ones(16))
    torch.manual_seed(0)
    assert torch.equal(torch.func.grad(lambda x: dropout(x).sum())(torch.ones(16)), mask)
