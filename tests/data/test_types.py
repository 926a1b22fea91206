"""Types of images, and their conversion to a network's input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutualign.data.types import Batch, TargetDataset, UnlabelledImages, to_floats


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("stored", [1, 3])
def test_floats_are_the_bytes_over_255_with_grey_repeated_and_channels_last_in_memory(stored):
    pixels = noise(2, 5, 4, stored)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    found = to_floats(pixels, 3)
    assert found.shape == (2, 3, 5, 4)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert [found[0, 0, 0, 0].item(), found[0, 0, 0, 1].item()] == [0.0, 1.0]
    for n in range(2):
        for channel in range(3):
            for row in range(5):
                for column in range(4):
                    value = pixels[n, row, column, min(channel, stored - 1)].item()
                    assert found[n, channel, row, column].item() == pytest.approx(value / 255, abs=1e-7)


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_batch_has_source_rows_first_and_then_target_rows(n_source, n_target):
    images = torch.arange((n_source + n_target) * 3.0).view(-1, 3, 1, 1)
    batch = Batch(images, torch.zeros(n_source, dtype=torch.int64))
    assert batch.n_source == n_source
    assert batch.target.tolist() == images.tolist()[n_source:]
    assert batch.is_source.tolist() == [1.0] * n_source + [0.0] * n_target


def test_taking_images_is_an_index_lookup_that_does_not_depend_on_the_key():
    images = UnlabelledImages(noise(6, 2, 2, 3))
    rows = torch.tensor([4, 0, 4])
    for key in (0, 1):
        found = images.take(rows, key)
        assert [image.tolist() for image in found] == [images.pixels[row].tolist() for row in (4, 0, 4)]


def test_target_labels_have_no_name_that_a_method_would_use():
    sealed = TargetDataset(UnlabelledImages(noise(6, 2, 2, 3)), torch.arange(6))
    assert not hasattr(sealed, "labels")
    assert not hasattr(sealed.images, "labels")
    assert sealed.reveal_labels().tolist() == [0, 1, 2, 3, 4, 5]
