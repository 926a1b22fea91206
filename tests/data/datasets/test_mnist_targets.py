"""The other targets, against loops over pixels and images."""

from __future__ import annotations

import torch

from mutualign.data.datasets import TASKS
from mutualign.data.datasets.mnist_targets import as_target, imbalanced, worn
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages


def digits(n: int = 3, side: int = 6) -> LabelledImages:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, side, side, 1), generator=rng).to(torch.uint8)
    return LabelledImages(UnlabelledImages(pixels), torch.arange(n) % 10)


def naive_worn(image: list[list[int]]) -> list[list[int]]:
    side = len(image)
    eroded = [
        [min(image[y][x] if y < side and x < side else 0 for y in (r, r + 1) for x in (c, c + 1)) for c in range(side)]
        for r in range(side)
    ]

    def mean(r: int, c: int) -> float:
        around = [(y, x) for y in range(r - 1, r + 2) for x in range(c - 1, c + 2)]
        return sum(eroded[y][x] for y, x in around if 0 <= y < side and 0 <= x < side) / 9

    return [[round(255 - mean(r, c)) for c in range(side)] for r in range(side)]


def test_worn_images_are_eroded_blurred_and_inverted_pixel_by_pixel():
    source = digits()
    target = worn(source)
    for before, after in zip(source.images.pixels[..., 0].tolist(), target.images.pixels[..., 0].tolist(), strict=True):
        assert after == naive_worn(before)
    assert torch.equal(target.reveal_labels(), source.labels)


def test_the_rare_classes_keep_every_fifth_image_in_the_order_of_the_file():
    labels = torch.tensor([9, 0, 9, 9, 9, 4, 9, 9, 5, 0, 5])
    pixels = torch.arange(11, dtype=torch.uint8).view(11, 1, 1, 1)
    kept = imbalanced(TargetDataset(UnlabelledImages(pixels), labels), labels)
    assert kept.images.pixels.flatten().tolist() == [0, 1, 5, 7, 8, 9]
    assert kept.reveal_labels().tolist() == [9, 0, 4, 9, 5, 0]


def test_a_sealed_target_has_the_images_and_keeps_the_labels_for_evaluation():
    source = digits()
    assert as_target(source).images is source.images
    assert torch.equal(as_target(source).reveal_labels(), source.labels)


def test_the_real_tasks_are_what_their_identity_says(real_data):
    frozen = TASKS["mnist-mnistm"].load(real_data)
    back = TASKS["mnistm-mnist"].load(real_data)
    assert torch.equal(back.source_train.images.pixels, frozen.target_train.images.pixels)
    assert torch.equal(back.source_train.labels, frozen.source_train.labels)
    assert torch.equal(back.target_test.images.pixels, frozen.source_test.images.pixels)
    assert back.shape == (3, 28, 28)

    rare = TASKS["mnist-mnistm-imbalanced"].load(real_data)
    for full, kept in ((frozen.target_train, rare.target_train), (frozen.target_test, rare.target_test)):
        counts, fewer = (torch.bincount(images.reveal_labels(), minlength=10) for images in (full, kept))
        assert torch.equal(fewer[:5], counts[:5])
        assert torch.equal(fewer[5:], (counts[5:] + 4) // 5)

    soft = TASKS["mnist-worn"].load(real_data)
    assert soft.shape == (1, 28, 28)
    assert len(soft.target_train) == 60000
    first = frozen.source_test.images.pixels[0, ..., 0].tolist()
    assert soft.target_test.images.pixels[0, ..., 0].tolist() == naive_worn(first)
