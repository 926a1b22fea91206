"""IDX files, good and broken."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from mutualign.data.datasets import idx
from mutualign.data.datasets.idx import parse_idx, read_idx
from mutualign.errors import MutualignError


def idx_bytes(sizes: tuple[int, ...], values: bytes, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(sizes)]) + b"".join(struct.pack(">I", size) for size in sizes) + values


GOOD = idx_bytes((2, 3, 2), bytes(range(100, 112)))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_a_good_file_gives_its_values_in_reading_order(tmp_path, pack):
    path = tmp_path / "images"
    path.write_bytes(pack(GOOD))
    found = read_idx(path)
    assert found.shape == (2, 3, 2)
    assert found.dtype == torch.uint8
    values = iter(range(100, 112))
    for i, j, k in itertools.product(range(2), range(3), range(2)):
        assert found[i, j, k] == next(values)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_every_array_of_bytes_survives_the_format(sizes, data):
    count = torch.tensor(sizes).prod().item()
    values = data.draw(st.binary(min_size=count, max_size=count))
    found = parse_idx(idx_bytes(tuple(sizes), values))
    assert list(found.shape) == sizes
    assert bytes(found.flatten().tolist()) == values


BROKEN = {
    "nothing": (b"", "starts with nothing"),
    "another magic": (b"PK\3\4" + GOOD, "starts with 50 4b 03 04, expected 00 00"),
    "a magic cut off": (b"\0\0\x08", "not an IDX file"),
    "signed bytes": (idx_bytes((1,), b"\1", kind=9), "type 0x09 is not supported"),
    "floats": (idx_bytes((1,), b"\1\1\1\1", kind=0x0D), "type 0x0d is not supported"),
    "no dimension": (idx_bytes((), b"\1"), "has 0 dimensions"),
    "255 dimensions": (bytes([0, 0, 8, 255]) + b"\1" * 2000, "has 255 dimensions"),
    "a header cut off": (GOOD[:10], "header is cut off: expected 3 sizes, found 6 bytes"),
    "values cut off": (GOOD[:-1], r"says \(2, 3, 2\) = 12 bytes, the file holds 11"),
    "values too many": (GOOD + b"\0", "the file holds 13"),
    "a huge size": (idx_bytes((2**32 - 1,) * 4, b"\1"), "the file holds 1$"),
    "no image, huge": (idx_bytes((0, *[2**32 - 1] * 7), b""), "no values$"),
    "no image": (idx_bytes((0, 28, 28), b""), "no values$"),
    "gzip, cut off": (gzip.compress(GOOD)[:-6], "cannot be read"),
    "gzip, damaged": (gzip.compress(GOOD)[:15] + b"\xff" * 30, "cannot be read"),
    "gzip, rubbish after": (gzip.compress(GOOD) + b"rubbish", "cannot be read"),
}


@pytest.mark.parametrize(("content", "fault"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_an_error_that_names_the_file_and_the_fault(tmp_path, content, fault):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(MutualignError, match=fault) as error:
        read_idx(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_missing_file_and_a_folder_are_errors_that_name_them(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(MutualignError, match="cannot be read") as error:
            read_idx(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_a_file_larger_than_the_limit_is_refused_and_one_of_just_the_limit_is_not(tmp_path, monkeypatch, pack):
    path: Path = tmp_path / "images"
    path.write_bytes(pack(idx_bytes((2 << 20,), bytes(2 << 20))))
    monkeypatch.setattr(idx, "MAX_BYTES", (2 << 20) + 7)
    with pytest.raises(MutualignError, match="holds more than 2 MiB"):
        read_idx(path)
    monkeypatch.setattr(idx, "MAX_BYTES", (2 << 20) + 8)
    assert read_idx(path).shape == (2 << 20,)


headers = st.builds(
    lambda start, kind, rank, sizes, rest: start + bytes([kind, rank]) + b"".join(sizes) + rest,
    st.just(b"\0\0"),
    st.sampled_from([8, 8, 8, 9, 0]),
    st.integers(0, 255),
    st.lists(st.sampled_from([b"\0\0\0\0", b"\0\0\0\1", b"\0\0\0\2", b"\xff\xff\xff\xff"]), max_size=9),
    st.binary(max_size=20),
)


@given(st.binary(max_size=64) | headers)
@example(bytes([0, 0, 8, 8]) + b"\0\0\0\0" + b"\xff\xff\xff\xff" * 7)
@example(bytes([0, 0, 8, 255]) + b"\0" * 1020)
def test_any_bytes_at_all_give_a_tensor_or_an_error_of_ours(content):
    try:
        found = parse_idx(content)
    except MutualignError:
        return
    assert 4 + 4 * found.ndim + found.numel() == len(content)
