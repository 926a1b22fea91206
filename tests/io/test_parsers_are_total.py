"""Parsers of untrusted files: plain data or a documented error, in bounded time and memory, whatever the bytes."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from fuzz.parsers import PARSERS, feed
from mutualign.errors import MutualignError
from mutualign.estimator.adapter_file import read_adapter
from mutualign.io.text import LONGEST_KEY, parse_json, parse_toml, read_text
from mutualign.runs.folder import RunFolder

CORPUS = sorted((Path(__file__).parents[1] / "data" / "fuzz_corpus").iterdir())
NO_CHECK = [HealthCheck.function_scoped_fixture]  # one folder for all examples is intended
NAMES = [parser.__name__ for parser in PARSERS]


# Cases that the fuzzer found, and variations --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged metadata
@pytest.mark.parametrize("parser", range(len(PARSERS)), ids=NAMES)
def test_the_fuzzers_cases_for_a_parser_are_data_or_a_documented_error(tmp_path, parser):
    cases = [path for path in CORPUS if path.read_bytes()[:1] == bytes([parser])]
    assert cases
    for path in cases:
        start = time.monotonic()
        feed(path.read_bytes(), tmp_path)
        assert time.monotonic() - start < 10, path


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=NO_CHECK)
@given(st.sampled_from(CORPUS), st.data())
def test_a_case_with_noise_in_it_is_too(tmp_path, path, data):
    content = path.read_bytes()
    start = data.draw(st.integers(1, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 8)))
    noise = data.draw(st.binary(max_size=8) | st.sampled_from([b"[" * 3000, b"9" * 5000, b"a." * 40, b"\xff" * 8]))
    feed(content[:start] + noise + content[end:], tmp_path)


# TOML and JSON --------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True)
@given(values)
def test_json_is_read_back_as_it_was_written(value):
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
def test_hard_toml_is_a_value_error_within_seconds(text):
    start = time.monotonic()
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
def test_hard_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_a_file_of_another_kind_too_large_or_not_utf8_is_a_value_error(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "large").write_bytes(b"x" * 101)
    for name, message in (("pipe", "regular"), ("latin", "utf-8"), ("large", "larger than the 100 bytes")):
        with pytest.raises(ValueError, match=message):
            read_text(tmp_path / name, 100)
    assert read_text(tmp_path / "large", 101) == "x" * 101


# Run folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "seed = '3'",
        "recipe = 3",
        "class_names = ['a', 3]",
        "images = {channels = 3, height = 8}",
        "images = {channels = 3, height = 8, width = 99999999}",
        "images = {channels = 3, height = 8, width = -8}",
        "seed = " + "[" * 3000,
    ],
    ids=lambda text: text[:60],
)
def test_a_config_of_something_else_is_named(tmp_path, text):
    (tmp_path / "config.toml").write_text(f"format = 1\n{text}", encoding="utf-8")
    with pytest.raises(MutualignError, match=r"config\.toml"):
        RunFolder.open(tmp_path).config()


@pytest.mark.parametrize("line", ["3", "[]", "{", '{"a": ' + "[" * DEEP, "\0", '"' + "9" * 5000], ids=range(6))
def test_a_bad_line_in_the_metrics_and_a_bad_result_are_named(tmp_path, line):
    (tmp_path / "config.toml").write_text("format = 1\n", encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n{line}\n", encoding="utf-8")
    (tmp_path / "result.json").write_text(line, encoding="utf-8")
    with pytest.raises(MutualignError, match=r"metrics\.jsonl, line 1"):
        RunFolder(tmp_path).metrics()
    with pytest.raises(MutualignError, match=r"result\.json"):
        RunFolder(tmp_path).result()


# Estimator files ------------------------------------------------------------------------------------------------------


def test_a_long_class_name_does_not_reserve_memory_for_every_class(tmp_path):
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
        with pytest.raises(MutualignError, match="names of classes"):
            read_adapter(path, frozenset())
        assert tracemalloc.get_traced_memory()[1] < 200 << 20  # numpy would have asked for 400 GB
    finally:
        tracemalloc.stop()
