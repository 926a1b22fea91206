"""Whatever the bytes: plain data or a named error, soon, and in memory that goes with the file's size."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from fuzz.parsers import PARSERS, feed
from mutualign.errors import MutualignError
from mutualign.estimator.adapter_file import read_adapter
from mutualign.io.tensors import MOST_TENSORS, unpack
from mutualign.io.text import LONGEST_KEY, parse_json, parse_toml, read_text
from mutualign.runs.folder import RunFolder

PROMISE = "parsers are total"
CORPUS = sorted((Path(__file__).parents[1] / "data" / "fuzz_corpus").iterdir())
NO_CHECK = [HealthCheck.function_scoped_fixture]  # a folder for all examples is meant
NAMES = [parser.__name__ for parser in PARSERS]


# What the fuzzer found, and variations of it ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged metadata
@pytest.mark.parametrize("parser", range(len(PARSERS)), ids=NAMES)
def test_the_corpus_of_the_fuzzer_holds_cases_for_the_parser_and_all_are_survived(tmp_path, parser, faults):
    cases = [path for path in CORPUS if path.read_bytes()[:1] == bytes([parser])]
    assert cases
    for path in cases:
        start = time.monotonic()
        with faults.injected(PROMISE):
            feed(path.read_bytes(), tmp_path)
            assert time.monotonic() - start < 10, path


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=NO_CHECK)
@given(st.sampled_from(CORPUS), st.data())
def test_a_case_of_the_corpus_with_noise_in_it_is_survived_too(tmp_path, faults, path, data):
    content = path.read_bytes()
    start = data.draw(st.integers(1, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 8)))
    noise = data.draw(st.binary(max_size=8) | st.sampled_from([b"[" * 3000, b"9" * 5000, b"a." * 40, b"\xff" * 8]))
    with faults.injected(PROMISE):
        feed(content[:start] + noise + content[end:], tmp_path)


# TOML and JSON --------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True)
@given(values)
def test_json_that_is_well_comes_back(value):
    assert parse_json(json.dumps(value)) == value


DEEP = 100_000
HARD_TOML = {
    "arrays in arrays": "a = " + "[" * DEEP,
    "tables in tables": "a = " + "{a = " * DEEP,
    "a dotted key": "a." * DEEP + "a = 1",
    "a dotted key with blanks and quotes": "'a' . \"b.c\" ." * DEEP + "a = 1",
    "a dotted key behind a string": 's = "\\""\n' + "a." * DEEP + "a = 1",
    "a dotted head": "[" + "a." * DEEP + "a]",
    "digits": "a = " + "9" * DEEP,
    "hexadecimal digits": "a = 0x" + "f" * DEEP,
    "a string without end": 'a = """' + 'x\\"""' * DEEP,
    "quotes": '"' * DEEP,
    "a date": "a = 9999-99-99T99:99:99Z",
    "a surrogate": 'a = "\\ud800"',
    "a zero byte": "a = \0",
}


@pytest.mark.parametrize("text", HARD_TOML.values(), ids=HARD_TOML)
def test_hard_toml_is_a_value_error_soon(text, faults):
    start = time.monotonic()
    with faults.injected(PROMISE):
        with pytest.raises(ValueError, match=r"."):
            parse_toml(text)
        assert time.monotonic() - start < 5


def test_keys_up_to_the_limit_and_dots_in_strings_and_comments_are_read():
    key = ".".join("k" * LONGEST_KEY)
    expected: object = 1
    for _ in range(LONGEST_KEY):
        expected = {"k": expected}
    assert parse_toml(f"{key} = 1") == expected
    dots = "a." * 100
    assert parse_toml(f's = "{dots}" # {dots}\nt = \'{dots}\'\nu = \'\'\'\n{dots}\'\'\'\nv = """\n\\"{dots}"""') == {
        "s": dots,
        "t": dots,
        "u": dots,
        "v": f'"{dots}',
    }
    assert parse_toml(f"a = [{'1.5, ' * 100}]") == {"a": [1.5] * 100}


@pytest.mark.parametrize("text", ["[" * DEEP, '{"a":' * DEEP, "9" * DEEP, "", "\0", '{"a": 1', "nul"])
def test_hard_json_is_a_value_error(text, faults):
    with faults.injected(PROMISE), pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_a_file_of_another_kind_too_large_or_not_utf8_is_a_value_error(tmp_path, faults):
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "large").write_bytes(b"x" * 101)
    for name, message in (("pipe", "regular"), ("latin", "utf-8"), ("large", "larger than the 100 bytes")):
        with faults.injected(PROMISE), pytest.raises(ValueError, match=message):
            read_text(tmp_path / name, 100)
    assert read_text(tmp_path / "large", 101) == "x" * 101


# Run folders ----------------------------------------------------------------------------------------------------------

BAD_CONFIGS = {
    "seed = '3'": "seed: expected int, got str",
    "recipe = 3": "recipe: expected dict, got int",
    "class_names = ['a', 3]": "class_names: expected texts",
    "images = {channels = 3, height = 8}": "missing 1 required positional argument: 'width'",
    "images = {channels = 3, height = 8, width = 99999999}": "no shape of images",
    "images = {channels = 3, height = 8, width = -8}": "no shape of images",
    "images = {channels = 3, height = 8, width = true}": "no shape of images",
    "seed = " + "[" * 3000: "nested too deep",
}


@pytest.mark.parametrize("text", BAD_CONFIGS, ids=range(len(BAD_CONFIGS)))
def test_a_config_of_something_else_is_named(tmp_path, text, faults):
    (tmp_path / "config.toml").write_text(f"format = 1\n{text}", encoding="utf-8")
    with (
        faults.injected(PROMISE),
        pytest.raises(MutualignError, match=rf"config\.toml: cannot be.*{BAD_CONFIGS[text]}"),
    ):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("line", ["3", "[]", "{", '{"a": ' + "[" * DEEP, "\0", '"' + "9" * 5000])
def test_a_bad_line_in_the_metrics_is_named_and_a_bad_result_too(tmp_path, line, faults):
    (tmp_path / "metrics.jsonl").write_text(f'{{"epoch": 1}}\n{line}\n{{"epoch": 3}}\n', encoding="utf-8")
    (tmp_path / "result.json").write_text(line, encoding="utf-8")
    with (
        faults.injected(PROMISE),
        pytest.raises(MutualignError, match=r"metrics\.jsonl, line 2: (not JSON|expected a t)"),
    ):
        RunFolder(tmp_path).metrics()
    with faults.injected(PROMISE), pytest.raises(MutualignError, match=r"result\.json: (not JSON|expected a table)"):
        RunFolder(tmp_path).result()


# safetensors ----------------------------------------------------------------------------------------------------------


def with_header(path: Path, header: object, content: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def tensor(shape: list[object], begin: object, end: object, dtype: object = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD_HEADERS = {
    "a list": [],
    "nested": b'{"a":' * DEEP,
    "digits": b'{"a": %s}' % (b"9" * 5000),
    "not UTF-8": b'{"\xff": 1}',
    "a number for a tensor": {"a": 1},
    "no shape": {"a": {"dtype": "U8", "data_offsets": [0, 4]}},
    "an unknown type": {"a": tensor([4], 0, 4, "U5")},
    "a list for a type": {"a": tensor([4], 0, 4, [])},
    "a size below 0": {"a": tensor([-4], 0, 4)},
    "two sizes below 0": {"a": tensor([-2, -2], 0, 4)},
    "a size that is true": {"a": tensor([True, 4], 0, 4)},
    "a size that is no whole number": {"a": tensor([4.0], 0, 4)},
    "a size and none": {"a": tensor([0, 2**62, 2**62], 0, 0)},
    "more than the file holds": {"a": tensor([2**40], 0, 2**40)},
    "less than the file holds": {"a": tensor([3], 0, 3)},
    "another shape than place": {"a": tensor([5], 0, 4)},
    "a hole": {"a": tensor([1], 0, 1), "b": tensor([2], 2, 4)},
    "the same bytes twice": {"a": tensor([4], 0, 4), "b": tensor([4], 0, 4)},
    "an end before the beginning": {"a": tensor([0], 4, 0)},
}


@pytest.mark.parametrize("header", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_header_that_does_not_fit_its_file_is_refused_before_it_is_opened(tmp_path, monkeypatch, header, faults):
    monkeypatch.setattr("mutualign.io.tensors.safe_open", None)  # it would be an error to get so far
    path = with_header(tmp_path / "a.safetensors", header, b"\1\2\3\4")
    with faults.injected("no code from files"), pytest.raises(ValueError, match=r"."):
        unpack(path)


def test_more_tensors_than_any_network_has_are_refused_before_any_is_made(tmp_path, monkeypatch, faults):
    monkeypatch.setattr("mutualign.io.tensors.safe_open", None)
    path = with_header(tmp_path / "a", {f"{i}": tensor([0], 0, 0) for i in range(MOST_TENSORS + 1)})
    with faults.injected("no code from files"), pytest.raises(ValueError, match="20,001 tensors; 20,000 at most"):
        unpack(path)


@settings(derandomize=True, max_examples=100, suppress_health_check=NO_CHECK)
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
def test_what_the_own_check_lets_pass_the_library_reads(tmp_path, faults, header, content):
    path = with_header(tmp_path / "a.safetensors", header, content)
    with faults.injected("no code from files"):
        try:
            found, _ = unpack(path)
        except ValueError:
            return
        assert sum(one.nbytes for one in found.values()) == len(content)


def test_a_long_name_of_a_class_does_not_give_every_class_its_room(tmp_path, faults):
    header = {
        "params": {},
        "recipe": {"name": "x", "description": "", "stages": [{"method": "dann", "epochs": 1}]},
        "shape": [1, 12, 12],
        "classes": {"kind": "U", "values": ["x" * 1_000_000, *map(str, range(100_000))]},
        "feature_names": None,
        "label_free_score": 0.5,
        "result": {"alarms": []},
    }
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(save({"w": torch.ones(1)}, {"mutualign_adapter": "1", "header": json.dumps(header)}))
    tracemalloc.start()
    try:
        with faults.injected("no code from files"), pytest.raises(MutualignError, match="names of classes"):
            read_adapter(path, frozenset())
        assert tracemalloc.get_traced_memory()[1] < 200 << 20  # numpy would have asked for 400 GB
    finally:
        tracemalloc.stop()
