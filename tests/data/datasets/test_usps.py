"""USPS: its text format, its enlargement against a loop, the two tasks, and the real files."""

from __future__ import annotations

import gzip
import hashlib
import math

import pytest
import torch

from mutualign.data.datasets import usps
from mutualign.data.datasets.usps import enlarge, load_mnist_usps, load_usps, load_usps_mnist, parse_usps
from mutualign.data.fetch.data_files import DataFile
from mutualign.data.types import LabelledImages, UnlabelledImages
from mutualign.errors import MutualignError

LINE = ["-1"] * 256


def text(*lines: list[str]) -> bytes:
    return "".join(" ".join(line) + " \n" for line in lines).encode()  # the real training file has a space at the end


def test_a_line_is_a_label_and_the_rows_of_an_image():
    values = [f"{number / 128 - 1:.4f}" for number in range(256)]
    pixels, labels = parse_usps(text(["6.0000", *values], ["9", *LINE]))
    assert labels.tolist() == [6, 9]
    assert labels.dtype == torch.int64
    assert pixels.shape == (2, 16, 16)
    assert pixels[0, 3, 5].item() == pytest.approx((3 * 16 + 5) / 128 - 1, abs=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (text(["1", *LINE[1:]]), "lines of 256 numbers, expected 257"),
        (text(["1", *LINE], ["2"]), "not a file of USPS: "),
        (text(["10", *LINE]), "a label is not a digit"),
        (text(["1.5", *LINE]), "a label is not a digit"),
        (text(["nan", *LINE]), "a label is not a digit"),
        (text(["1", *LINE[1:], "1.01"]), r"not in \[-1, 1\]"),
        (text(["1", *LINE[1:], "nan"]), r"not in \[-1, 1\]"),
        (text(["1", *LINE[1:], "one"]), "not a file of USPS: "),
        (b"\xff\xfe", "not a file of USPS: "),
        (b"# 1", "not a file of USPS: "),
        (b" \n", "it is empty"),
    ],
)
def test_another_form_is_an_error(content, message):
    with pytest.raises(MutualignError, match=message):
        parse_usps(content)


def naive_enlarged(image: list[list[float]], row: int, column: int) -> int:
    """Mean of the four pixels around the centre of a pixel of the larger image, weighted by distance."""

    def place(number: int) -> tuple[int, int, float]:
        at = max((number + 0.5) * 16 / 28 - 0.5, 0.0)
        return math.floor(at), min(math.floor(at) + 1, 15), at - math.floor(at)

    (up, down, below), (left, right, beyond) = place(row), place(column)
    top = image[up][left] * (1 - beyond) + image[up][right] * beyond
    bottom = image[down][left] * (1 - beyond) + image[down][right] * beyond
    return round((top * (1 - below) + bottom * below + 1) * 127.5)


def test_images_are_enlarged_as_a_loop_would():
    values = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels = enlarge(values).pixels
    assert pixels.shape == (2, 28, 28, 1)
    for image, large in zip(values.tolist(), pixels[..., 0].tolist(), strict=True):
        naive = [[naive_enlarged(image, row, column) for column in range(28)] for row in range(28)]
        assert all(
            abs(a - b) <= 1  # at most: a value half way between two bytes
            for line, other in zip(naive, large, strict=True)
            for a, b in zip(line, other, strict=True)
        )


@pytest.mark.parametrize("folder", ["usps/", "USPS/", ""])
def test_every_layout_is_read(tmp_path, monkeypatch, folder):
    files = []
    for name, label in (("zip.train.gz", "3"), ("zip.test.gz", "7")):
        content = gzip.compress(text([label, *LINE]))
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        known = next(file for file in usps.USPS_FILES if name in file.accepted)
        files.append(DataFile(dict.fromkeys(known.accepted, sha256)))
    monkeypatch.setattr(usps, "USPS_FILES", tuple(files))
    train, test = load_usps(tmp_path)
    assert (train.labels.tolist(), test.labels.tolist()) == ([3], [7])
    assert not train.images.pixels.any()


def test_a_file_that_is_not_gzipped_is_named(tmp_path):
    (tmp_path / "zip.train.gz").write_bytes(b"1 2 3")
    with pytest.raises(MutualignError, match=r"zip\.train\.gz: cannot be read"):
        usps._read(tmp_path / "zip.train.gz")


def digits(n: int, value: int) -> LabelledImages:
    return LabelledImages(UnlabelledImages(torch.full((n, 28, 28, 1), value, dtype=torch.uint8)), torch.arange(n))


def test_the_tasks_are_each_other_reversed(tmp_path, monkeypatch):
    mnist, own = (digits(4, 1), digits(3, 2)), (digits(2, 3), digits(1, 4))
    monkeypatch.setattr(usps, "require", lambda files, task, folder: [])
    monkeypatch.setattr(usps, "load_mnist", lambda folder, task: mnist)
    monkeypatch.setattr(usps, "load_usps", lambda folder, task: own)
    there, back = load_mnist_usps(tmp_path), load_usps_mnist(tmp_path)
    assert (there.name, back.name) == ("mnist-usps", "usps-mnist")
    assert there.source_train is mnist[0]
    assert back.source_test is own[1]
    for task, (train, test) in ((there, own), (back, mnist)):
        assert task.target_train.images is train.images
        assert torch.equal(task.target_test.reveal_labels(), test.labels)
    assert there.identity == (
        "MNIST 28x28, 60000 train / 10000 test; target USPS 16x16 enlarged to 28x28 bilinear, 7291 train / 2007 test"
    )
    assert back.identity != there.identity


def test_the_real_files_hold_the_known_images(real_data):
    train, test = load_usps(real_data)
    assert train.images.pixels.shape == (7291, 28, 28, 1)
    assert test.images.pixels.shape == (2007, 28, 28, 1)
    # The counts of the files' own description.
    assert torch.bincount(train.labels).tolist() == [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]
    assert torch.bincount(test.labels).tolist() == [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]
    assert 0.2 < train.images.pixels.float().mean().item() / 255 < 0.3
