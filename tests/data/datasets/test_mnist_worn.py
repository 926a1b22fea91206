"""MNIST eroded, blurred and inverted, against a loop over pixels."""

from __future__ import annotations

import torch

from mutualign.data.datasets import mnist_worn
from mutualign.data.datasets.mnist_worn import load_worn, worn
from mutualign.data.types import LabelledImages, UnlabelledImages


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


def test_worn_images_are_eroded_blurred_and_inverted_pixel_by_pixel(monkeypatch):
    monkeypatch.setattr(mnist_worn, "CHUNK", 2)
    source = digits()
    target = worn(source)
    for before, after in zip(source.images.pixels[..., 0].tolist(), target.images.pixels[..., 0].tolist(), strict=True):
        assert after == naive_worn(before)
    assert torch.equal(target.reveal_labels(), source.labels)


def test_the_task_has_the_same_digits_in_both_domains(tmp_path, monkeypatch):
    train, test = digits(5), digits(4)
    monkeypatch.setattr(mnist_worn, "load_mnist", lambda folder, task: (train, test))
    task = load_worn(tmp_path)
    assert torch.equal(task.target_test.images.pixels, worn(test).images.pixels)
    assert task.shape == (1, 6, 6)
    assert task.identity == (
        "MNIST 28x28, 60000 train / 10000 test; target the same images eroded (minimum of 2x2 pixels), blurred (mean "
        "of 3x3, zeros outside) and inverted (255 - value)"
    )
