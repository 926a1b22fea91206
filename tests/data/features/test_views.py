"""Views of a photo, as a function of its key."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mutualign.data.features.settings import FeatureSettings
from mutualign.data.features.views import photo_views, random_boxes
from mutualign.data.folders.image_io import decode_image
from mutualign.data.types import ImageShape
from tests.data.folders.images import encoded

PHOTO = encoded(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8), "PNG")


def test_the_first_view_is_the_image_as_a_run_decodes_it_and_the_second_its_mirror_image():
    first, second = photo_views(PHOTO, "x", 32, 2, "key")
    assert torch.equal(first, decode_image(PHOTO, "x", ImageShape(3, 32, 32)))
    assert torch.equal(second, first.flip(1))


def test_crops_depend_on_the_key_alone_and_the_first_views_on_none():
    views = photo_views(PHOTO, "x", 32, 5, "a", 1)
    assert torch.equal(views, photo_views(PHOTO, "x", 32, 5, "a", 1))
    assert torch.equal(views[:3], photo_views(PHOTO, "x", 32, 3, "a", 1))  # more views leave the first as they are
    other = photo_views(PHOTO, "x", 32, 5, "a", 2)
    assert torch.equal(views[:2], other[:2])
    assert not any(torch.equal(one, another) for one, another in zip(views[2:], other[2:], strict=True))


def test_a_crop_shows_its_box_and_every_other_one_is_mirrored():
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    columns = photo_views(encoded(ramp), "x", 64, 6, "key")[..., 0].float().mean(1)  # of each view
    for number, (left, _, right, _) in enumerate(random_boxes(4, "key"), start=2):
        values = columns[number].flip(0) if number % 2 == 1 else columns[number]
        expected = 256 * (left + (right - left) * (torch.arange(64) + 0.5) / 64) - 2
        torch.testing.assert_close(values[2:-2], expected[2:-2], atol=2.0, rtol=0)


def test_random_boxes_lie_in_the_square_and_have_half_of_its_area_or_more():
    boxes = torch.tensor(random_boxes(500, "test"), dtype=torch.float64)
    left, top, right, bottom = boxes.unbind(1)
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-9
    areas = (right - left) * (bottom - top)
    assert areas.min() > 0.4  # a long crop is cut where it would leave the square
    assert 0.72 < areas.mean() < 0.78
    assert float(((right - left) / (bottom - top)).max()) <= 1.25 + 1e-9


def test_the_number_of_views_has_limits():
    for views in (0, 65):
        with pytest.raises(ValueError, match=f"views must be from 1 to 64, got {views}"):
            FeatureSettings(views=views)
