"""Files of tensors: they come back bit for bit, and whatever was done to them is found."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save

from mutualign.io import tensors as tensor_files
from mutualign.io.tensors import pack, unpack

TENSORS = {"w": torch.tensor([1.5, -0.0, float("nan")]), "n": torch.tensor(7), "none": torch.zeros(0, 2)}
ABOUT = {"info": json.dumps({"stage": 1})}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file.safetensors").write_bytes(pack(TENSORS, ABOUT))
    return tmp_path / "file.safetensors"


def same(found):
    return found.keys() == TENSORS.keys() and all(
        torch.equal(found[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))
        for name, tensor in TENSORS.items()
    )


def test_tensors_and_metadata_come_back_bit_for_bit(path):
    tensors, metadata = unpack(path, hashed=True)
    assert same(tensors)
    assert metadata == ABOUT


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing_that_is_read(path, faults):
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for place in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[place // 8] ^= 1 << place % 8
        path.write_bytes(broken)
        with faults.injected("corruption is found"):
            try:
                tensors, metadata = unpack(path)
            except ValueError:
                refused += 1
                continue
            assert place // 8 < header  # in the name of the hash itself, for one
            assert same(tensors)
            assert metadata["info"] == ABOUT["info"]
    assert refused > 0.95 * 8 * len(whole)


def test_a_file_that_is_cut_anywhere_or_longer_is_refused(path, faults):
    whole = path.read_bytes()
    for broken in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        path.write_bytes(broken)
        with faults.injected("corruption is found"), pytest.raises(ValueError, match=r"."):
            unpack(path)


def test_metadata_that_was_changed_is_found(path):
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"stage", b"stagf"))
    with pytest.raises(ValueError, match="SHA-256"):
        unpack(path)


def test_a_foreign_file_is_read_unless_a_hash_is_asked_for(path):
    path.write_bytes(save(TENSORS))
    assert same(unpack(path)[0])
    with pytest.raises(ValueError, match="no SHA-256"):
        unpack(path, hashed=True)


def test_a_header_too_long_is_refused_before_it_is_read(path, faults, monkeypatch):
    monkeypatch.setattr(tensor_files, "safe_open", None)  # it would be an error to get so far
    for length in (tensor_files.LARGEST_HEADER + 1, 2**40, 2**64 - 1):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        with faults.injected("no code from files"), pytest.raises(ValueError, match=r"a header of .* bytes"):
            unpack(path)


def test_a_header_that_promises_more_than_the_file_holds_is_refused(path, faults):
    for shape in ([2**40], [2**31, 2**31, 4]):
        end = 4
        for size in shape:
            end *= size
        header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with faults.injected("no code from files"), pytest.raises(ValueError, match=r"."):
            unpack(path)
