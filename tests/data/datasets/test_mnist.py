"""MNIST: every layout that people have, small, and the real files where they are."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import pytest
import torch

from mutualign.data.datasets import mnist, published
from mutualign.data.datasets.mnist import load_mnist
from mutualign.data.datasets.published import MNIST_FILES
from mutualign.errors import MutualignError


def idx_bytes(values: torch.Tensor) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + bytes(values.flatten().tolist())


def use_files(monkeypatch: pytest.MonkeyPatch, arrays: list[torch.Tensor]) -> dict[str, bytes]:
    """Let MNIST be these four arrays, and return the contents of its files."""
    contents = {name: idx_bytes(array) for name, array in zip(published._MNIST_SHA256, arrays, strict=True)}
    hashes = {
        name: (hashlib.sha256(gzip.compress(content, mtime=0)).hexdigest(), hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    }
    monkeypatch.setattr(published, "_MNIST_SHA256", hashes)
    monkeypatch.setattr(mnist, "MNIST_FILES", tuple(map(published._mnist_file, hashes)))
    return contents


def arrays() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 2), (4,), (2, 3, 2), (2,)]
    return [torch.randint(10, shape, generator=generator).to(torch.uint8) for shape in shapes]


@pytest.mark.parametrize(("folder", "zipped"), [("MNIST/raw", True), ("mnist", False), (".", True), (".", False)])
def test_every_layout_is_read(tmp_path, monkeypatch, folder, zipped):
    for name, content in use_files(monkeypatch, arrays()).items():
        path: Path = tmp_path / folder / (f"{name}.gz" if zipped else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    train, test = load_mnist(tmp_path)
    train_images, train_labels, test_images, test_labels = arrays()
    assert train.images.pixels.tolist() == train_images[..., None].tolist()
    assert test.images.pixels.tolist() == test_images[..., None].tolist()
    assert (train.labels.tolist(), test.labels.tolist()) == (train_labels.tolist(), test_labels.tolist())
    assert train.labels.dtype == torch.int64


@pytest.mark.parametrize("wrong", [[torch.ones(3)], [torch.ones(4, 1)]], ids=["too few", "two dimensions"])
def test_labels_that_do_not_go_with_the_images_are_an_error(tmp_path, monkeypatch, wrong):
    good = arrays()
    for name, content in use_files(monkeypatch, [good[0], wrong[0].to(torch.uint8), *good[2:]]).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(
        MutualignError, match=r"train-images-idx3-ubyte: images of shape \(4, 3, 2\) do not match labels"
    ):
        load_mnist(tmp_path)


def test_each_file_has_two_mirrors_and_is_downloaded_gzipped_where_torchvision_puts_it():
    assert [file.name for file in MNIST_FILES] == [
        f"MNIST/raw/{name}-ubyte.gz"
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    ]
    for file in MNIST_FILES:
        assert [url.rpartition("/")[2] for url in file.mirrors] == [file.name.rpartition("/")[2]] * 2


def test_the_real_files_hold_the_known_images(real_data):
    train, test = load_mnist(real_data)
    assert train.images.pixels.shape == (60_000, 28, 28, 1)
    assert test.images.pixels.shape == (10_000, 28, 28, 1)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(train.labels).tolist() == counts
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert train.images.pixels.float().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)
