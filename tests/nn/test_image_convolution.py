"""The convolution of images against torch's own, in value, gradient and layout; and how oneDNN shares its work."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from mutualign.nn.image_convolution import ImageConv2d


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def pair(request):
    """Our convolution and torch's with the same weights, and images in channels-last order."""
    torch.manual_seed(0)
    ours, plain = (
        kind(request.param, 32, 5).to(memory_format=torch.channels_last) for kind in (ImageConv2d, nn.Conv2d)
    )
    plain.load_state_dict(ours.state_dict())
    return ours, plain, torch.rand(4, request.param, 12, 14).contiguous(memory_format=torch.channels_last)


def test_in_bf16_values_and_gradients_are_those_of_torch_up_to_its_rounding(pair):
    ours, plain, images = pair
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = ours(images), plain(images)
    exact = nn.functional.conv2d(
        images.bfloat16().float(), plain.weight.bfloat16().float(), plain.bias.bfloat16().float()
    )
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=1e-5)
    assert (found.dtype, found.stride()) == (expected.dtype, expected.stride())
    upstream = torch.randn_like(expected)
    found.backward(upstream)
    expected.backward(upstream)
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, plain.get_parameter(name).grad, rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("enabled", [False, True], ids=["float32", "bf16 without gradients"])
def test_in_float32_and_without_gradients_it_is_torchs_own(pair, enabled):
    ours, plain, images = pair
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.set_grad_enabled(not enabled):
        assert torch.equal(ours(images), plain(images))


def test_images_get_their_gradient_too(pair):
    ours, plain, images = pair
    grads = []
    for layer in (ours, plain):
        values = images.clone(memory_format=torch.preserve_format).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(values)
        out.float().square().sum().backward()
        grads.append(values.grad)
    torch.testing.assert_close(*grads, rtol=2e-2, atol=2e-2 * float(grads[1].abs().max()))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_two_threads_that_share_a_core_do_not_wait_for_each_other_at_every_image():
    n = 128
    script = f"""
        import os
        os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
        import resource, torch
        from mutualign.nn.image_convolution import ImageConv2d

        def switches():
            return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw

        torch.set_num_threads(2)
        layer = ImageConv2d(3, 32, 5).to(memory_format=torch.channels_last)
        images = torch.rand({n}, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        for _ in range(2):  # the first compiles the kernels
            with torch.autocast("cpu", torch.bfloat16):
                out = layer(images)
            upstream, before = torch.ones_like(out), switches()
            out.backward(upstream)
        print(switches() - before)
    """
    run = [sys.executable, "-c", textwrap.dedent(script)]
    found = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120)
    assert int(found.stdout) < n  # with torch's own convolution at least two per image, on a CPU with bf16
