"""Files of tensors: a bit-exact round trip, and detection of every change and every hostile header."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
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


def test_a_tensor_with_two_names_and_a_part_of_another_come_back_as_tensors_of_their_own(path):
    whole = torch.arange(6.0).view(3, 2)
    path.write_bytes(pack({"a": whole, "b": whole, "rows": whole[1:], "column": whole[:, 1]}, {}))
    tensors, _ = unpack(path, hashed=True)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "a": whole.tolist(), "b": whole.tolist(), "rows": whole[1:].tolist(), "column": [1.0, 3.0, 5.0]
    }  # fmt: skip


def test_a_flipped_bit_is_detected_or_changes_nothing_that_is_read(path):
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    refused, places = 0, range(0, 8 * len(whole), 3)
    for place in places:
        broken = bytearray(whole)
        broken[place // 8] ^= 1 << place % 8
        path.write_bytes(broken)
        try:
            tensors, metadata = unpack(path)
        except ValueError:
            refused += 1
            continue
        assert place // 8 < header  # in the key of the hash itself, for one
        assert same(tensors)
        assert metadata["info"] == ABOUT["info"]
    assert refused > 0.95 * len(places)


def test_a_file_that_is_cut_or_longer_is_refused(path):
    whole = path.read_bytes()
    for broken in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"."):
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


def test_a_header_too_long_is_refused_before_it_is_read(path, monkeypatch):
    monkeypatch.setattr(tensor_files, "safe_open", None)  # it would be an error to get so far
    for length in (tensor_files.LARGEST_HEADER + 1, 2**40, 2**64 - 1):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(ValueError, match=r"a header of .* bytes"):
            unpack(path)


def with_header(path, header, content=b"\1\2\3\4"):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def tensor(shape, begin, end, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


FULL = {"b": tensor([4], 0, 4)}
HOSTILE = {
    "a list": [],
    "nested": b'{"a":' * 100_000,
    "digits": b'{"a": %s}' % (b"9" * 5000),
    "not UTF-8": b'{"\xff": 1}',
    "a number for a tensor": {"a": 1},
    "a number in the metadata": {"__metadata__": {"a": 1}, **FULL},
    "no shape": {"a": {"dtype": "U8", "data_offsets": [0, 4]}},
    "an unknown type": {"a": tensor([4], 0, 4, "U5")},
    "a list for a type": {"a": tensor([4], 0, 4, [])},
    "sizes below 0": {"a": tensor([-2, -2], 0, 4)},
    "a size that is true": {"a": tensor([True, 4], 0, 4)},
    "a size that is no whole number": {"a": tensor([4.0], 0, 4)},
    "a huge shape without values": {"a": tensor([0, 2**62, 2**62], 0, 0), **FULL},
    "a size beyond 63 bits": {"a": tensor([0, 2**63], 0, 0), **FULL},
    "a product that wraps to 0": {"a": tensor([2**32, 2**32], 0, 0), **FULL},
    "a product that overflows": {"a": tensor([2**31, 2**31, 4], 0, 2**64 - 1)},
    "more than the file": {"a": tensor([2**40], 0, 2**40)},
    "less than the file": {"a": tensor([3], 0, 3)},
    "a shape of another size": {"a": tensor([5], 0, 4)},
    "a type of another size": {"a": tensor([4], 0, 4, "F32")},
    "a hole": {"a": tensor([1], 0, 1), "b": tensor([2], 2, 4)},
    "a hole at the start": {"a": tensor([3], 1, 4)},
    "the same bytes twice": {"a": tensor([4], 0, 4), **FULL},
    "an overlap": {"a": tensor([3], 0, 3), "b": tensor([3], 1, 4)},
    "an end before the start": {"a": tensor([0], 4, 0)},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused_before_a_tensor_is_made(path, monkeypatch, case):
    monkeypatch.setattr(tensor_files, "digest", None)  # it would be an error to get so far
    with pytest.raises(ValueError, match=r"."):
        unpack(with_header(path, HOSTILE[case]))


def test_more_tensors_than_any_network_has_are_refused(path):
    header = {f"{i}": tensor([0], 0, 0) for i in range(tensor_files.MOST_TENSORS + 1)}
    with pytest.raises(ValueError, match="20,001 tensors; 20,000 at most"):
        unpack(with_header(path, header, b""))


@settings(derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(max_size=3),
        st.builds(
            tensor,
            st.lists(st.integers(-1, 5) | st.just(2**63), max_size=3),
            st.integers(0, 8),
            st.integers(0, 8),
            st.sampled_from(["U8", "F16", "BOOL", "I64", "F8_E4M3", "F4", ""]),
        ),
        max_size=3,
    ),
    st.binary(max_size=16),
)
@example({"": tensor([0, 5], 0, 0)}, b"")
def test_a_header_that_is_accepted_describes_every_byte_of_the_file(path, header, content):
    try:
        found, _ = unpack(with_header(path, header, content))
    except ValueError:
        return
    assert sum(one.nbytes for one in found.values()) == len(content)
