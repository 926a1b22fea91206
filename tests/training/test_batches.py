"""Which images a step sees."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mutualign.data.folders.mapped_images import MappedImages
from mutualign.data.types import ImageShape, LabelledImages, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.training.batches import Batches, EpochSampler, steps_per_pass


def numbered(n, channels=1, first=0):
    """Images whose pixels all have the number of the image."""
    numbers = torch.arange(first, first + n, dtype=torch.uint8)
    return UnlabelledImages(numbers[:, None, None, None].expand(n, 4, 5, channels).contiguous())


@dataclasses.dataclass(frozen=True)
class Watched(UnlabelledImages):
    """Images that record the keys of their accesses."""

    keys: list[int] = dataclasses.field(default_factory=list)

    def take(self, indices, key):
        self.keys.append(key)
        return super().take(indices, key)


def make(n_source=10, n_target=14, batch_size=4, seed=0, stage=0, channels=1, stored=(1, 1), epoch_steps=0):
    source = LabelledImages(numbered(n_source, stored[0]), torch.arange(n_source) % 3)
    target = None if n_target is None else numbered(n_target, stored[1], first=100)
    return Batches(source, target, channels, batch_size, seed, stage, epoch_steps)


def numbers_of(images):
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


# EpochSampler ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "batch_size", "sizes"),
    [
        (10, 4, [4, 4, 2]),
        (12, 4, [4, 4, 4]),
        (3, 8, [3]),
        (9, 8, [9]),  # a single image left over joins the batch before it
        (13, 4, [4, 4, 5]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_each_pass_is_a_permutation_cut_into_batches_and_no_image_is_left_alone(length, batch_size, sizes):
    order = EpochSampler(length, batch_size, 0, "source")
    assert order.steps_per_pass == len(sizes)
    for number in range(3):
        rows = [order.indices(number * len(sizes) + i) for i in range(len(sizes))]
        assert [len(part) for part in rows] == sizes
        assert sorted(torch.cat(rows).tolist()) == list(range(length))


def test_passes_keys_and_seeds_differ_and_the_same_key_is_the_same_order():
    def first_pass(*key, start=0):
        order = EpochSampler(50, 50, *key)
        return order.indices(start).tolist()

    assert first_pass(0, "source") == first_pass(0, "source")
    others = [first_pass(0, "source", start=1), first_pass(0, "target"), first_pass(1, "source")]
    assert all(other != first_pass(0, "source") for other in others)


def test_any_step_may_be_asked_for_at_any_time():
    sequential = [EpochSampler(10, 3, 5).indices(step).tolist() for step in range(20)]
    order = EpochSampler(10, 3, 5)
    for step in [19, 0, 7, 3, 4, 12, 11, 0, 19]:
        assert order.indices(step).tolist() == sequential[step]


# Batches --------------------------------------------------------------------------------------------------------------


def test_an_epoch_is_one_pass_over_the_source_with_the_labels_of_its_images():
    batches = make()
    assert batches.steps_per_epoch == 3
    for epoch in range(2):
        seen = []
        for step in range(3 * epoch, 3 * epoch + 3):
            batch = batches[step]
            numbers = numbers_of(batch.images[: batch.n_source])
            assert batch.labels.tolist() == [number % 3 for number in numbers]
            seen += numbers
        assert sorted(seen) == list(range(10))


@pytest.mark.parametrize(("epoch_steps", "steps"), [(0, 3), (1, 3), (3, 3), (4, 6), (6, 6), (7, 9), (100, 102)])
def test_an_epoch_is_as_many_whole_passes_as_its_least_number_of_steps_takes(epoch_steps, steps):
    batches = make(epoch_steps=epoch_steps)
    assert batches.steps_per_epoch == steps
    seen = [number for step in range(steps) for number in numbers_of(batches[step].images[: batches[step].n_source])]
    assert sorted(seen) == sorted(list(range(10)) * (steps // 3))


@pytest.mark.parametrize("n_target", [3, 10, 14, 25])
def test_the_target_goes_through_passes_of_its_own_whatever_its_length(n_target):
    batches = make(n_target=n_target)
    per_pass = steps_per_pass(n_target, 4)
    for number in range(3):
        seen = []
        for step in range(number * per_pass, (number + 1) * per_pass):
            seen += numbers_of(batches[step].target)
        assert sorted(seen) == list(range(100, 100 + n_target))


def test_source_and_target_of_the_same_length_are_in_orders_of_their_own():
    batches = make(n_source=20, n_target=20, batch_size=20)
    source, target = numbers_of(batches[0].images[:20]), numbers_of(batches[0].target)
    assert source != [number - 100 for number in target]


def test_the_last_batch_of_a_pass_is_smaller_on_its_own_side_only():
    batches = make(n_source=10, n_target=14)
    sizes = [(batches[step].n_source, len(batches[step].target)) for step in range(6)]
    assert sizes == [(4, 4), (4, 4), (2, 4), (4, 2), (4, 4), (2, 4)]


def test_is_source_marks_the_rows_of_the_source():
    batch = make()[2]  # 2 + 4 images
    assert batch.is_source.tolist() == [1, 1, 0, 0, 0, 0]


def test_a_batch_of_one_domain_alone_is_that_domains_part_of_the_batch_of_both():
    both, source, target = make(), make(n_target=None), Batches(None, numbered(14, first=100), 1, 4, 0, 0)
    assert target.steps_per_epoch == 4  # a pass over the target
    for step in range(7):
        whole = both[step]
        assert torch.equal(source[step].images, whole.images[: whole.n_source])
        assert torch.equal(source[step].labels, whole.labels)
        assert torch.equal(target[step].images, whole.target)
        assert torch.equal(target[step].target_rows, whole.target_rows)
        assert (len(source[step].target), target[step].n_source) == (0, 0)
        assert numbers_of(whole.target) == (whole.target_rows + 100).tolist()
    with pytest.raises(MutualignError, match="source images, target images, or both"):
        Batches(None, None, 1, 4, 0, 0)


def test_the_same_key_gives_the_same_batches_in_any_order_and_others_differ():
    first, again = make(), make()
    for step in [5, 0, 3, 5, 1]:
        assert torch.equal(first[step].images, again[step].images)
        assert torch.equal(first[step].labels, again[step].labels)
    for other in (make(seed=1), make(stage=1)):
        assert any(not torch.equal(first[step].images, other[step].images) for step in range(3))


def test_every_access_has_its_own_key_and_the_same_access_the_same():
    def keys_of(steps, **settings):
        source, target = Watched(numbered(10).pixels), Watched(numbered(14).pixels)
        settings = {"seed": 0, "stage": 0} | settings
        batches = Batches(LabelledImages(source, torch.zeros(10, dtype=torch.int64)), target, 1, 4, **settings)
        for step in steps:
            batches[step]
        return source.keys + target.keys

    keys = keys_of(range(6)) + keys_of(range(6), seed=1) + keys_of(range(6), stage=1)
    assert len(set(keys)) == 36
    assert keys_of([3]) == keys_of([3])
    assert keys_of([5, 3])[1::2] == keys_of([3])


def test_the_target_rows_are_on_the_device_of_the_images_also_if_these_are_read_from_a_file(tmp_path):
    (tmp_path / "images").write_bytes(bytes(4 * 2 * 2 * 3))
    mapped = MappedImages.open(tmp_path / "images", 4, ImageShape(3, 2, 2))
    elsewhere = dataclasses.replace(mapped, device=torch.device("meta"))  # as `to` leaves more than 4 GiB for a GPU
    batch = Batches(None, elsewhere, 3, 2, 0, 0)[0]
    assert batch.images.device.type == batch.target_rows.device.type == "meta"


@pytest.mark.parametrize("stored", [(1, 3), (3, 1), (1, 1), (3, 3)])
def test_grey_and_colour_may_be_mixed_and_grey_is_repeated(stored):
    batch = make(channels=3, stored=stored)[0]
    assert batch.images.shape == (8, 3, 4, 5)
    for channel in range(3):
        assert torch.equal(batch.images[:, channel], batch.images[:, 0])


def test_images_are_floats_from_0_to_1_channels_last_in_memory():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 4, 5, 3).contiguous()
    source = LabelledImages(UnlabelledImages(pixels), torch.arange(3))
    batch = Batches(source, None, 3, 3, 0, 0)[0]
    assert batch.images.dtype == torch.float32
    assert batch.images[:, 0, 0, 0].tolist() == pytest.approx([[0, 0.2, 1][label] for label in batch.labels.tolist()])
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
