"""The cache of tensors: what is kept comes back as it was, and nothing damaged is ever used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mutualign.data.cache import cached
from mutualign.io.tensors import digest


def tensors() -> dict[str, torch.Tensor]:
    pixels = torch.arange(24, dtype=torch.uint8).view(2, 3, 4).transpose(0, 2)  # not contiguous
    return {"pixels": pixels, "labels": torch.tensor([3, -1])}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The file of tensors kept under the name "thing"."""
    cached("thing", tensors)
    return tmp_path / "cache" / "mutualign" / "built" / "thing.safetensors"


def rebuilt() -> bool:
    """Whether "thing" is built again; the right tensors must come back in any case."""
    calls = []

    def build() -> dict[str, torch.Tensor]:
        calls.append(1)
        return tensors()

    found = cached("thing", build)
    assert found.keys() == tensors().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors().items())
    return bool(calls)


def test_whatever_bit_is_flipped_the_right_tensors_come_back(kept):
    assert not rebuilt()
    good = kept.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    for i in range(0, len(good), 2):
        kept.write_bytes(good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1 :])
        assert rebuilt() or i < header  # a space more in the header changes no tensor


def test_a_file_that_is_cut_or_longer_or_without_a_hash_is_built_again(kept):
    good = kept.read_bytes()
    save_file({"pixels": torch.zeros(2)}, kept)
    without_hash = kept.read_bytes()
    for content in [*(good[:i] for i in range(0, len(good), 31)), good + b"\0", without_hash]:
        kept.write_bytes(content)
        assert rebuilt()
        assert not rebuilt()


def test_no_part_of_a_file_is_left_where_the_cache_cannot_be_written(tmp_path, kept):
    kept.unlink()
    kept.mkdir()  # a folder in the file's place: writing works, renaming does not
    assert rebuilt()
    assert list(kept.parent.iterdir()) == [kept]
    assert not list(kept.iterdir())


def test_the_hash_sees_names_types_shapes_and_values_but_not_the_order_or_the_layout():
    original = digest(tensors())
    assert digest(dict(reversed(tensors().items()))) == original
    strided = tensors()["pixels"].permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert digest(tensors() | {"pixels": strided}) == original
    pixels, labels = tensors().values()
    others = [
        {"pixels": pixels},
        {"pixels": pixels, "label": labels},
        {"pixels": pixels, "labels": labels.int()},
        {"pixels": pixels.reshape(3, 4, 2), "labels": labels},
        {"pixels": pixels, "labels": labels + 1},
        {"pixels": labels, "labels": pixels},
    ]
    assert len({original, *map(digest, others)}) == len(others) + 1
