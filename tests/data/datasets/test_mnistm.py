"""MNIST-M made here: the blend against a naive loop, and what is random and what is not."""

from __future__ import annotations

import pytest
import torch

from mutualign.data.datasets import TASKS, find_task, mnist_mnistm, mnistm
from mutualign.data.datasets.bsds500 import Photos
from mutualign.data.datasets.mnist_mnistm import imbalanced
from mutualign.data.datasets.mnistm import ResampledImages, blend, blend_over_photos, frozen, resampled
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.io.tensors import digest


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_the_blend_is_the_difference_of_patch_and_digit_in_every_pixel_and_channel():
    patches, digits = noise(3, 4, 5, 3), noise(3, 4, 5, 1, seed=1)
    patches[0, 0, :2], digits[0, 0, :2] = torch.tensor([[0], [255]]), torch.tensor([[255], [0]])  # no wrapping around
    found = blend(patches, digits)
    assert found.dtype == torch.uint8
    for n in range(3):
        for row in range(4):
            for column in range(5):
                for channel in range(3):
                    patch, digit = patches[n, row, column, channel].item(), digits[n, row, column, 0].item()
                    assert found[n, row, column, channel].item() == abs(patch - digit)


def flat_photos(*values: int) -> Photos:
    return Photos([torch.full((9, 11, 3), value, dtype=torch.uint8) for value in values])


def digits(n: int, seed: int = 0) -> LabelledImages:
    return LabelledImages(UnlabelledImages(noise(n, 6, 6, 1, seed=seed)), torch.arange(n) % 10)


def test_each_digit_gets_a_background_of_its_own():
    black = torch.zeros(200, 6, 6, 1, dtype=torch.uint8)
    found = blend_over_photos(black, flat_photos(10, 20, 30), key=0)
    assert set(found[:, 0, 0, 0].tolist()) == {10, 20, 30}
    assert all(image.unique().numel() == 1 for image in found)


@pytest.fixture
def photos(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Noise for photos, another for each split; returns the list of loaded splits."""
    loaded: list[list[str]] = []

    def load(splits: list[str], task: str, folder: object) -> Photos:
        loaded.append(list(splits))
        return Photos([noise(40, 50, 3, seed=100 + len(split)) for split in splits])

    monkeypatch.setattr(mnistm, "load_bsds500", load)
    return loaded


def pixels(images: tuple[TargetDataset, TargetDataset]) -> list[torch.Tensor]:
    return [part.images.pixels for part in images]


def test_frozen_backgrounds_are_the_same_twice_with_and_without_the_cache(tmp_path, monkeypatch, photos):
    train, test = digits(7), digits(5, seed=1)
    first = pixels(frozen(train, test, tmp_path, "a-task"))
    assert photos == [["train"], ["test"]]
    again = pixels(frozen(train, test, tmp_path, "a-task"))
    assert len(photos) == 2  # nothing was loaded again
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    rebuilt = pixels(frozen(train, test, tmp_path, "a-task"))
    assert len(photos) == 4
    for part in range(2):
        assert torch.equal(first[part], again[part])
        assert torch.equal(first[part], rebuilt[part])


def test_frozen_backgrounds_differ_by_seed_and_between_train_and_test(tmp_path, monkeypatch):
    monkeypatch.setattr(mnistm, "load_bsds500", lambda *_: Photos([noise(40, 50, 3)]))  # the same photo for both
    same = digits(7)
    train, test = pixels(frozen(same, same, tmp_path, "a-task", seed=0))
    other_train, other_test = pixels(frozen(same, same, tmp_path, "a-task", seed=1))
    parts = [train, test, other_train, other_test]
    for i in range(4):
        for j in range(i):
            assert not torch.equal(parts[i], parts[j])


def test_frozen_images_kept_for_some_digits_are_not_taken_for_others(tmp_path, photos):
    for train in (digits(7), digits(6), digits(7, seed=2)):
        found = pixels(frozen(train, digits(5), tmp_path, "a-task"))[0]
        assert len(found) == len(train)
    assert len(photos) == 6


def test_frozen_images_do_not_repeat_their_backgrounds_after_5000_images(tmp_path, monkeypatch):
    monkeypatch.setattr(mnistm, "load_bsds500", lambda *_: Photos([noise(99, 98, 3)]))
    black = LabelledImages(
        UnlabelledImages(torch.zeros(5003, 4, 4, 1, dtype=torch.uint8)), torch.zeros(5003, dtype=torch.int64)
    )
    train, _ = pixels(frozen(black, digits(2), tmp_path, "a-task"))
    assert len(train) == 5003
    assert not torch.equal(train[:3], train[5000:])


def test_resampled_backgrounds_are_a_function_of_the_key(photos, tmp_path):
    train, _ = resampled(digits(7), digits(5), tmp_path, "a-task")
    rows = torch.tensor([6, 0, 3])
    first, again, other = (train.images.take(rows, key) for key in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_resampled_images_are_the_digits_asked_for_over_photos_of_all_splits(photos, tmp_path):
    train, test = resampled(digits(7), digits(5, seed=1), tmp_path, "a-task")
    assert photos == [["train", "val", "test"]]
    rows = torch.tensor([4, 2])
    for part, own in ((train, digits(7)), (test, digits(5, seed=1))):
        expected = blend_over_photos(own.images.pixels[[4, 2]], part.images.photos, 3)
        assert torch.equal(part.images.take(rows, 3), expected)


# Tasks ----------------------------------------------------------------------------------------------------------------

MNIST = "MNIST 28x28, 60000 train / 10000 test"
FROZEN = (
    "MNIST-M, variant frozen: |patch - digit|, one BSDS500 background an image, seed 0, train over BSDS500 train "
    "(200 photos), test over BSDS500 test (200 photos)"
)
RESAMPLED = (
    "MNIST-M, variant resampled: |patch - digit|, a new background at every access, training and evaluation alike, "
    "from all 500 photos of BSDS500"
)
IMBALANCED = (
    "MNIST-M, variant frozen as in mnist-mnistm, of whose classes 5 to 9 every fifth image is kept, in the order of "
    "the file, in train and test"
)
IDENTITIES = {
    "mnist-mnistm": f"{MNIST}; target {FROZEN}",
    "mnist-mnistm-resampled": f"{MNIST}; target {RESAMPLED}",
    "mnist-mnistm-imbalanced": f"{MNIST}; target {IMBALANCED}",
    "mnistm-mnist": f"source {FROZEN}; target {MNIST}",
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_the_tasks_keep_their_identity_and_have_the_images_that_it_says(tmp_path, monkeypatch, photos, name):
    """Runs resume only on the same words."""
    train, test = digits(50), digits(20, seed=1)
    needed_for = []
    monkeypatch.setattr(mnist_mnistm, "load_mnist", lambda folder, task: (train, test))
    monkeypatch.setattr(mnist_mnistm, "require", lambda files, task, folder: needed_for.append((task, files)))
    task = find_task(name).load(tmp_path)
    assert needed_for == [(name, TASKS[name].files)]
    assert (task.name, task.identity, task.shape) == (name, IDENTITIES[name], (3, 6, 6))
    target_train, target_test = frozen(train, test, tmp_path, name)
    if name == "mnistm-mnist":
        assert torch.equal(task.source_train.images.pixels, target_train.images.pixels)
        assert torch.equal(task.target_test.images.pixels, test.images.pixels)
        assert task.target_test.reveal_labels().equal(test.labels)
    elif name == "mnist-mnistm-imbalanced":
        assert torch.bincount(task.target_train.reveal_labels()).tolist() == [5] * 5 + [1] * 5
        assert torch.bincount(task.target_test.reveal_labels()).tolist() == [2] * 5 + [1] * 5
    elif name == "mnist-mnistm":
        assert torch.equal(task.target_test.images.pixels, target_test.images.pixels)
    else:
        assert isinstance(task.target_test.images, ResampledImages)


def test_the_rare_classes_keep_every_fifth_image_in_the_order_of_the_file():
    labels = torch.tensor([9, 0, 9, 9, 9, 4, 9, 9, 5, 0, 5])
    pixels = torch.arange(11, dtype=torch.uint8).view(11, 1, 1, 1)
    kept = imbalanced(TargetDataset(UnlabelledImages(pixels), labels), labels)
    assert kept.images.pixels.flatten().tolist() == [0, 1, 5, 7, 8, 9]
    assert kept.reveal_labels().tolist() == [9, 0, 4, 9, 5, 0]


def test_the_real_frozen_variant_has_the_pixels_that_all_results_are_on(real_data, monkeypatch):
    task = find_task("mnist-mnistm").load(real_data)
    target = (task.target_train.images.pixels, task.target_test.images.pixels)
    assert [one.shape for one in target] == [(60_000, 28, 28, 3), (10_000, 28, 28, 3)]
    assert digest(dict(zip(("train", "test"), target, strict=True))).startswith("3aeee046c4cf3c08")
    monkeypatch.setattr(mnistm, "load_bsds500", None)  # from the cache
    assert torch.equal(find_task("mnistm-mnist").load(real_data).source_test.images.pixels, target[1])
