"""Strong views: the identity if nothing may change, closed forms, and parameters drawn per image."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mutualign.data.augment import (
    AugmentConfig,
    add_target_texture,
    affine_grid,
    clutter,
    noise_like,
    solarised,
    strong_views,
    uniform,
)

NOTHING = AugmentConfig(geometry=0.0, solarise=0.0, colour=0.0, inversion=0.0, texture=0.0, noise=0.0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 9, 13, generator=torch.Generator().manual_seed(0))


def seeded(function, *arguments, seed=1):
    torch.manual_seed(seed)
    return function(*arguments)


def test_nothing_changes_if_nothing_may(images):
    assert torch.equal(strong_views(images, NOTHING), images)
    assert torch.equal(add_target_texture(images, images, NOTHING), images)
    assert torch.equal(add_target_texture(images, images[:0], replace(NOTHING, texture=1.0, noise=1.0)), images)


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (3, 1, 5, 8), (1, 4, 11, 2)])
def test_a_grid_of_no_strength_takes_every_pixel_from_where_it_is(shape):
    expected = F.affine_grid(torch.eye(2, 3).expand(shape[0], 2, 3), list(shape), align_corners=False)
    torch.testing.assert_close(affine_grid(torch.zeros(shape), AugmentConfig(geometry=0.0)), expected)


def test_a_grid_is_the_affine_map_of_its_own_draws():
    found = seeded(affine_grid, torch.zeros(4, 1, 6, 7), AugmentConfig(geometry=0.8, scale=0.3))
    draw = 2 * seeded(torch.rand, (6, 4)) - 1
    for i, values in enumerate(draw.T.tolist()):
        angle, scale, aspect, shear = (
            0.8 * value * most for value, most in zip(values[:4], (math.radians(10), 0.3, 0.05, 0.1), strict=True)
        )
        c, s = math.cos(angle), math.sin(angle)
        rows = [
            [c * (1 + scale), (shear - s) * (1 + scale) * 6 / 7, 0.8 * 0.09 * values[4]],
            [s * (1 + scale) * (1 + aspect) * 7 / 6, c * (1 + scale) * (1 + aspect), 0.8 * 0.09 * values[5]],
        ]
        expected = F.affine_grid(torch.tensor([rows]), [1, 1, 6, 7], align_corners=False)
        # the second row's vertical entry and the first row's horizontal one are scaled as written above
        torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 40), (16, 64), (64, 16)])
def test_images_that_are_not_square_are_turned_and_not_sheared(shape, monkeypatch):
    turned = torch.tensor([1.0, 0.5, 0.5, 0.5, 0.5, 0.5])[:, None]  # the largest angle; no other change
    monkeypatch.setattr(torch, "rand", lambda *size, **settings: turned)
    grid = affine_grid(torch.zeros(1, 1, *shape), AugmentConfig(geometry=1.0))[0]
    pixels = grid * torch.tensor([shape[1], shape[0]]) / 2
    down, right = pixels[1, 0] - pixels[0, 0], pixels[0, 1] - pixels[0, 0]
    c, s = math.cos(math.radians(10)), math.sin(math.radians(10))
    torch.testing.assert_close(torch.stack([right, down]), torch.tensor([[c, s], [-s, c]]), rtol=1e-4, atol=1e-4)


def test_a_grid_is_exact_under_autocast():
    images = torch.zeros(2, 1, 64, 64)
    expected = seeded(affine_grid, images, AugmentConfig())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(seeded(affine_grid, images.bfloat16(), AugmentConfig()), expected)


def test_geometry_moves_pixels_and_invents_no_values(images):
    moved = seeded(strong_views, images, replace(NOTHING, geometry=1.0))
    assert not torch.allclose(moved, images)
    assert float(moved.min()) >= float(images.min())
    assert float(moved.max()) <= float(images.max())
    flat = torch.full_like(images, 0.4)
    torch.testing.assert_close(seeded(strong_views, flat, replace(NOTHING, geometry=1.0)), flat)


def test_colour_is_one_gain_and_one_offset_for_each_channel_within_the_stated_range(images):
    many = images.repeat(50, 1, 1, 1)
    coloured = seeded(strong_views, many, replace(NOTHING, colour=1.0))
    gains, offsets = [], []
    for before, after in zip(many.flatten(0, 1).flatten(1), coloured.flatten(0, 1).flatten(1), strict=True):
        gain = (after[0] - after[1]) / (before[0] - before[1])
        offset = after[0] - gain * (before[0] - 0.5) - 0.5
        torch.testing.assert_close(after, gain * (before - 0.5) + 0.5 + offset, rtol=1e-3, atol=1e-3)
        gains.append(float(gain.log()))
        offsets.append(float(offset))
    for found, low, high in ((gains, -0.7, 0.5), (offsets, -0.25, 0.25)):  # of 900 channels
        assert (min(found), max(found)) == pytest.approx((low, high), abs=0.02)
        assert low - 1e-3 < min(found) <= max(found) < high + 1e-3
    assert len({round(gain, 3) for gain in gains}) > 300  # and not one for each of 300 images


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_stated_share_of_images_is_inverted_all_channels_together(images, share):
    many = images.repeat(200, 1, 1, 1)
    views = seeded(strong_views, many, replace(NOTHING, inversion=share))
    inverted = torch.isclose(views, 1 - many).flatten(1).all(1)
    kept = torch.isclose(views, many).flatten(1).all(1)
    assert bool((inverted ^ kept).all())
    assert float(inverted.float().mean()) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_stated_share_of_images_is_folded_over_at_a_level_of_each_channel(images, share):
    many = images.repeat(100, 1, 1, 1)
    views = seeded(strong_views, many, replace(NOTHING, solarise=share))
    folded, all_levels = 0, []
    for before, after in zip(many, views, strict=True):
        if torch.equal(before, after):
            continue
        folded += 1
        for old, new in zip(before, after, strict=True):
            level = float(new.max()) if bool((new != old).any()) else 1.0  # no value lies above its level
            levels = (new + old)[new != old] / 2  # v + (2 level - v) = 2 level
            assert levels.numel() == 0 or float(levels.max() - levels.min()) < 1e-5
            all_levels += levels[:1].tolist()
            assert level <= 1.0
            assert torch.equal(new[new == old], old[new == old])
    assert 0.3 <= min(all_levels) < 0.33
    assert 0.9 < max(all_levels) <= 1.0
    assert len({round(one, 4) for one in all_levels}) > 2 * folded  # each channel has its own
    assert folded / len(many) == pytest.approx(share, abs=0.06)


def test_a_solid_shape_becomes_its_outline_when_it_is_solarised():
    stroke = torch.tensor([0.0, 0.5, 1.0, 1.0, 0.5, 0.0]).expand(1, 1, 4, 6)
    for seed in range(20):
        row = seeded(solarised, stroke, seed=seed)[0, 0, 0]
        level = max(seeded(uniform, stroke, 0.3, 1.0, seed=seed).item(), 0.0)
        assert row.tolist() == pytest.approx([min(v, 2 * level - v) for v in stroke[0, 0, 0].tolist()], abs=1e-6)


@pytest.fixture
def plain() -> torch.Tensor:
    """240 images of a square on black, with little clutter."""
    images = torch.zeros(240, 3, 9, 13)
    images[:, :, 3:6, 4:8] = 0.9
    return images


def test_clutter_is_the_share_of_neighbours_that_differ(plain, images):
    assert clutter(plain).item() == pytest.approx(2 * 3 / (9 * 12))  # two borders in each of three rows
    assert clutter(images).item() > 0.9
    assert clutter(torch.full((2, 1, 4, 5), 0.3)).item() == 0
    steps = torch.tensor([0.0, 0.01, 0.02, 0.06, 0.5]).expand(1, 1, 2, 5)
    assert clutter(steps).item() == 0.5


def test_texture_is_one_other_image_around_its_middle_grey_of_either_sign(plain):
    others = torch.rand(4, 3, 9, 13, generator=torch.Generator().manual_seed(5))
    textured = seeded(add_target_texture, plain, others, replace(NOTHING, texture=0.8))
    factors = []
    for before, after in zip(plain, textured, strict=True):
        fits = [(float((after - before)[0, 0, 0] / (other - 0.5)[0, 0, 0]), other) for other in others]
        factors += [k for k, other in fits if torch.allclose(after - before, k * (other - 0.5), atol=1e-4)]
    assert len(factors) >= 240
    assert max(map(abs, factors)) <= 0.8
    assert min(factors) < -0.5 < 0.5 < max(factors)


def test_noise_is_even_within_an_amplitude_of_each_images_own(plain, images):
    difference = (seeded(add_target_texture, plain, images, replace(NOTHING, noise=0.5)) - plain).flatten(1)
    most = difference.abs().amax(1)
    assert 0.4 < float(most.max()) <= 0.5
    assert float(most.min()) < 0.1
    even = difference / most[:, None]
    assert float(even.mean()) == pytest.approx(0, abs=0.02)
    assert float(even.square().mean()) == pytest.approx(1 / 3, abs=0.02)  # the variance of U(-1, 1)
    assert torch.unique(noise_like(plain)).numel() == 256


@pytest.mark.parametrize(("times", "strength"), [(0.5, 0.0), (1.0, 0.0), (1.5, 0.5), (2.0, 1.0), (3.0, 1.0)])
def test_noise_is_added_in_proportion_to_how_much_more_cluttered_the_target_is(times, strength):
    def stripes(borders):  # of 60 pairs of neighbours in a row, so many differ
        values = torch.zeros(61)
        values[1:borders] = torch.arange(borders - 1) % 2 + 1.0
        return (values / 2).expand(5, 1, 4, 61)

    source, target = stripes(20), stripes(int(20 * times))
    assert clutter(target).item() / clutter(source).item() == pytest.approx(times)
    views = replace(NOTHING, noise=0.5)
    found = seeded(add_target_texture, source, target, views) - source
    torch.manual_seed(1)
    expected = strength * uniform(source, 0.0, 0.5) * noise_like(source)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_views_are_decided_by_torchs_seed_and_lie_channels_last(images):
    first, again, other = (seeded(strong_views, images, AugmentConfig(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert first.shape == images.shape
