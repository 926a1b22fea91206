"""The fuzzed target: for any bytes, each parser returns plain data or raises the error that it documents, in time.

The first byte chooses the parser, the others are its input. `python -m fuzz` runs it under atheris; the tests run it
without atheris, over the corpus.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mutualign.data.datasets import mnistm_original
from mutualign.data.datasets.idx import parse_idx, read_idx
from mutualign.data.datasets.usps import parse_usps
from mutualign.data.folders.image_cache import _read_info
from mutualign.data.folders.image_io import decode_image, decode_rgb, image_shape
from mutualign.data.folders.listing import list_labelled, list_unlabelled
from mutualign.data.folders.vectors import read_vectors
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from mutualign.estimator import DomainAdapter
from mutualign.estimator.adapter_file import read_adapter
from mutualign.evaluation.records import EpochRecord
from mutualign.io.tensors import digest, unpack
from mutualign.recipes import Recipe, load_recipe
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result


def idx(content: bytes, folder: Path) -> None:
    found = parse_idx(content)
    assert found.numel() < len(content)


def idx_file(content: bytes, folder: Path) -> None:
    (folder / "labels").write_bytes(content)
    read_idx(folder / "labels")


def image(content: bytes, folder: Path) -> None:
    shape = image_shape(content, "an image")
    if shape.height * shape.width > 1 << 20:  # below the limit of 64 megapixels, but slow
        return
    assert decode_image(content, "an image", ImageShape(3, 5, 4)).shape == (5, 4, 3)


def png(content: bytes, folder: Path) -> None:
    assert decode_rgb(content, "an image", "PNG", (2, 5)).shape == (2, 5, 3)


def table(content: bytes, folder: Path) -> None:
    (folder / "table.csv").write_bytes(content)
    with suppress(MutualignError):
        list_unlabelled(folder / "table.csv")
    listing = list_labelled(folder / "table.csv")
    assert len(listing) == len(listing.labels or ()) > 0


def recipe(content: bytes, folder: Path) -> None:
    (folder / "own.toml").write_bytes(content)
    found = load_recipe(str(folder / "own.toml"))
    assert isinstance(found, Recipe)
    assert found.to_dict()["stages"]


def override(content: bytes, folder: Path) -> None:
    load_recipe("mani", [content.decode("utf-8", "replace")])


def config(content: bytes, folder: Path) -> None:
    (folder / "config.toml").write_bytes(content)
    found = RunFolder.open(folder).config()
    assert found.own_images is None or isinstance(found.own_images.source, Path)
    assert isinstance(found.run_spec.recipe, Recipe)


def metrics(content: bytes, folder: Path) -> None:
    (folder / "metrics.jsonl").write_bytes(content)
    assert all(isinstance(record, EpochRecord) for record in RunFolder(folder).metrics())


def result(content: bytes, folder: Path) -> None:
    (folder / "result.json").write_bytes(content)
    assert isinstance(RunFolder(folder).result(), Result)


def tensors(content: bytes, folder: Path) -> None:
    (folder / "file.safetensors").write_bytes(content)
    with suppress(ValueError):  # documented by `unpack`
        found, _ = unpack(folder / "file.safetensors")
        assert sum(tensor.nbytes for tensor in found.values()) < len(content)
        digest(found)


def checkpoint(content: bytes, folder: Path) -> None:
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "last.safetensors").write_bytes(content)
    with suppress(MutualignError):
        RunFolder(folder).checkpoints.load("last")
    RunFolder(folder).checkpoints.load_resumable()


def adapter(content: bytes, folder: Path) -> None:
    (folder / "adapter.safetensors").write_bytes(content)
    read_adapter(folder / "adapter.safetensors", frozenset(DomainAdapter().get_params()))


def label_list(content: bytes, folder: Path) -> None:
    found = mnistm_original._labels({"mnist_m_train_labels.txt": content}, "train", folder)
    assert all(0 <= label < 10 for label in found.values())


def archive(content: bytes, folder: Path) -> None:
    (folder / "mnist_m.tar.gz").write_bytes(gzip.compress(content, 1))
    found = mnistm_original._read_archive(folder / "mnist_m.tar.gz")
    assert sum(map(len, found.values())) <= len(content)


def zipped_archive(content: bytes, folder: Path) -> None:
    (folder / "mnist_m.tar.gz").write_bytes(content)
    mnistm_original._read_archive(folder / "mnist_m.tar.gz")


def description(content: bytes, folder: Path) -> None:
    (folder / "key.bytes").write_bytes(b"")
    (folder / "key.json").write_bytes(content)
    assert _read_info(folder / "key.bytes") is None or b"seal" in content


def vectors_npz(content: bytes, folder: Path) -> None:
    (folder / "own.npz").write_bytes(content)
    found = read_vectors(folder / "own.npz", labelled=True)
    assert len(found) == len(found.labels or ()) > 0


def vectors_npy(content: bytes, folder: Path) -> None:
    (folder / "own.npy").write_bytes(content)
    assert len(read_vectors(folder / "own.npy", labelled=False)) > 0


def usps(content: bytes, folder: Path) -> None:
    pixels, labels = parse_usps(content)
    assert pixels.shape == (len(labels), 16, 16)
    assert pixels.numel() < len(content)


PARSERS: tuple[Callable[[bytes, Path], None], ...] = (  # add new ones at the end: the corpus depends on the order
    idx,
    idx_file,
    image,
    png,
    table,
    recipe,
    override,
    config,
    metrics,
    result,
    tensors,
    checkpoint,
    adapter,
    label_list,
    archive,
    zipped_archive,
    description,
    vectors_npz,
    vectors_npy,
    usps,
)


def feed(data: bytes, folder: Path) -> None:
    """Run the parser that the first byte chooses on the other bytes; any error except MutualignError is a finding."""
    if data and data[0] < len(PARSERS):
        with suppress(MutualignError):
            PARSERS[data[0]](data[1:], folder)
