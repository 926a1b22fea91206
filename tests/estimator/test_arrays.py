"""Arrays: checked, and converted to a task in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mutualign.data.types import LabelledImages, UnlabelledImages
from mutualign.estimator.arrays import (
    alike,
    as_numpy,
    axes_of,
    held_out,
    images_to_pixels,
    make_task,
    source_labels,
    vectors_to_pixels,
)


def test_integers_become_bytes_and_floats_float32_and_grey_gets_its_channel():
    integers = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert images_to_pixels(integers).dtype == torch.uint8
    assert images_to_pixels(integers)[..., 0].tolist() == integers.tolist()
    floats = np.linspace(0, 1, 24).reshape(2, 3, 4, 1)
    assert images_to_pixels(floats).dtype == torch.float32
    np.testing.assert_allclose(images_to_pixels(floats), floats, rtol=1e-6)
    assert images_to_pixels(integers > 5).tolist() == (integers > 5).astype(float)[..., None].tolist()


def test_bytes_are_not_copied():
    images = np.zeros((2, 3, 4, 1), dtype=np.uint8)
    images_to_pixels(images)[0, 0, 0, 0] = 7
    assert images[0, 0, 0, 0] == 7


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 32, 32)), r"looks like \[n, channels, height, width\](.|\n)*permute"),
        (np.full((2, 8, 8), 16.0), "float64 values from 16 to 16(.|\n)*X / 255"),
        (np.full((2, 8, 8), -0.1), "from -0.1 to -0.1"),
        (np.full((2, 8, 8), 256), "int64 values from 256 to 256"),
        (np.zeros((2, 2, 8, 8, 3)), "X has 5 axes"),
        (
            np.stack([np.zeros((8, 8)), np.full((8, 8), np.nan)]),
            r"1 of 2 images, the first is X\[1\]\n  hint:    leave",
        ),
        (np.full((2, 8, 8), np.inf), r"2 of 2 images, the first is X\[0\]"),
    ],
)
def test_images_that_cannot_be_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        images_to_pixels(images)


def test_vectors_are_images_of_one_pixel():
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    pixels = vectors_to_pixels(vectors)
    assert pixels.shape == (5, 1, 1, 7)
    assert pixels.flatten(1).tolist() == vectors.tolist()


def test_a_tensor_becomes_an_array_be_it_bf16_or_in_a_graph():
    assert as_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    assert as_numpy(torch.ones(2, requires_grad=True)).tolist() == [1, 1]
    assert as_numpy("anything else") == "anything else"
    assert [axes_of(values) for values in ([[1, 2]], torch.ones(1, 2, 3), np.ones(4))] == [2, 3, 1]


def test_bytes_beside_floats_become_floats():
    grey = UnlabelledImages(torch.full((1, 2, 2, 1), 51, dtype=torch.uint8))
    colour, high = UnlabelledImages(torch.zeros(1, 2, 2, 3)), UnlabelledImages(torch.zeros(1, 3, 2, 1))
    source, target = alike(grey, colour)
    assert source.pixels.unique().tolist() == pytest.approx([0.2])
    assert target.pixels is colour.pixels
    assert alike(colour, colour) == (colour, colour)
    with pytest.raises(ValueError, match="source images are 2x2 of 1 channels, target images 3x2 of 1"):
        alike(grey, high)
    with pytest.raises(ValueError, match="of 3 channels, target images 2x2 of 4"):
        alike(colour, UnlabelledImages(torch.zeros(1, 2, 2, 4)))


def test_a_share_of_each_class_is_held_out_and_each_class_keeps_an_image():
    labels = torch.tensor([0] * 20 + [1] * 5 + [2] * 2 + [3])
    held = held_out(labels, 0.1, seed=0)
    assert torch.bincount(labels[held], minlength=4).tolist() == [2, 1, 1, 0]
    assert torch.bincount(labels[held_out(labels, 0.99, seed=0)], minlength=4).tolist() == [19, 4, 1, 0]
    assert held.equal(held_out(labels, 0.1, seed=0))
    assert not held.equal(held_out(labels, 0.1, seed=1))


def test_labels_of_target_rows_are_left_out_before_they_are_checked():
    y = np.array(["a", "b", None, 3.5], dtype=object)
    assert source_labels(y, torch.tensor([True, True, False, False])).tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        source_labels(y, torch.tensor([True]))
    with pytest.raises(ValueError, match="Input y contains NaN"):
        source_labels([0, np.nan], torch.tensor([True, True]))


def test_a_task_in_memory_has_no_target_labels_and_an_identity_that_its_content_decides():
    pixels, target = torch.rand(6, 1, 1, 3), UnlabelledImages(torch.rand(4, 1, 1, 3))
    labels, held = torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([True] * 2 + [False] * 4)

    def made(labels):
        return make_task(LabelledImages(UnlabelledImages(pixels.clone()), labels), target, ("a", "b"), held)

    task = made(labels)
    assert (len(task.source_train), len(task.source_test), len(task.target_train)) == (4, 2, 4)
    assert task.source_test.images.pixels.equal(pixels[:2])
    assert task.source_test.labels.tolist() == [0, 1]
    assert task.target_train.hidden_labels is task.target_test.hidden_labels is None
    assert "6 source and 4 target" in task.identity
    assert task.identity == made(labels).identity
    assert task.identity != made(1 - labels).identity
