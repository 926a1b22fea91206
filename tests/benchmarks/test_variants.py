"""Variants of MNIST-M: what each does to digits and photos, and that a second call trains only what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import variants

from mutualign.data.datasets.bsds500 import Photos
from mutualign.data.types import LabelledImages
from mutualign.data.types import UnlabelledImages as Images

SIDE = variants.SIDE


@pytest.fixture
def digits():
    """Squares of full brightness, 8 pixels wide, in the middle of black images."""
    pixels = torch.zeros(30, SIDE, SIDE, 1, dtype=torch.uint8)
    pixels[:, 10:18, 10:18] = 255
    return pixels


@pytest.fixture
def photos():
    """One photo of a single colour."""
    return Photos([torch.tensor([10, 100, 200], dtype=torch.uint8).expand(40, 40, 3)])


def test_every_variant_is_its_blend_of_its_digits_over_its_backgrounds(digits, photos):
    def made(name):
        return variants.VARIANTS[name].images(digits, photos, torch.Generator().manual_seed(0)).pixels

    inside, outside, edge = (0, 14, 14), (0, 0, 0), (0, 14, 9)
    expected = {  # a pixel of the digit, and one of the background
        "mnist-m": ([245, 155, 55], [10, 100, 200]),
        "inverted": ([10, 100, 200], [245, 155, 55]),
        "white digits": ([255, 255, 255], [10, 100, 200]),
        "black digits": ([0, 0, 0], [10, 100, 200]),
        "faint digits": ([118, 28, 72], [10, 100, 200]),
        "magnified photos": ([245, 155, 55], [10, 100, 200]),
    }
    for name, (digit, background) in expected.items():
        assert (made(name)[inside].tolist(), made(name)[outside].tolist()) == (digit, background), name
    assert made("mnist-m")[edge].tolist() == [10, 100, 200]
    assert made("digits x 1.3")[edge].tolist() != [10, 100, 200]
    assert made("digits x 0.7")[0, 14, 10].tolist() == [10, 100, 200]
    assert made("noise")[:, 0, 0].float().std() > 20
    assert made("one colour each")[0, 0, 0].tolist() == made("one colour each")[0, 0, 27].tolist()
    for name, variant in variants.VARIANTS.items():
        images = variant.images(digits, photos, torch.Generator().manual_seed(0))
        assert (images.pixels.shape, images.pixels.dtype) == ((30, SIDE, SIDE, 3), torch.uint8), name


def test_a_second_call_trains_only_what_is_missing(run_benchmark, monkeypatch, digits, photos):
    squares = LabelledImages(Images(digits), torch.arange(30) % 10)
    monkeypatch.setattr(variants, "load_mnist", lambda folder, task: (squares, squares))
    monkeypatch.setattr(variants, "load_bsds500", lambda splits, task, folder: photos)
    short = ("--steps", "1", "--seeds", "1", "--variants")
    first, _ = run_benchmark("variants.py", *short, "inverted", "--recipes", "fast")
    assert [(row["variant"], row["recipe"], row["seed"]) for row in first["rows"]] == [("inverted", "fast", 0)]
    trained = []

    def measure(case, recipe, task):
        trained.append((case["recipe"], task.name))
        return first["rows"][0] | case

    monkeypatch.setattr(variants, "measure", measure)
    former = Path(variants.__file__).parent / "ablation" / "former-fast.toml"
    again, _ = run_benchmark("variants.py", *short, "inverted", "noise", "--recipes", "fast", former)
    assert trained == [("former-fast", "inverted"), ("fast", "noise"), ("former-fast", "noise")]
    assert [(row["recipe"], row["variant"]) for row in again["rows"]] == [("fast", "inverted"), *trained]
    shown = variants.table(again["rows"])
    assert [column.header for column in shown.columns] == ["variant", "fast, target, %", "former-fast, target, %"]
    assert shown.row_count == 2
