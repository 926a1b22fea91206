"""Locks of open files, on Unix and, as far as it can be had here, on Windows."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from mutualign.io import file_lock
from tests.without_unix import msvcrt


@pytest.fixture(params=["Unix", "Windows"])
def module(request, monkeypatch):
    if request.param == "Unix":
        return file_lock
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt())
    monkeypatch.setitem(sys.modules, "fcntl", None)
    spec = importlib.util.spec_from_file_location("file_lock_on_windows", file_lock.__file__)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    assert hasattr(found, "locking")
    return found


@pytest.fixture
def opened(tmp_path):
    """A file, opened three times; the first one has read five bytes."""
    (tmp_path / "file").write_bytes(b"123456789")
    numbers = [os.open(tmp_path / "file", flags) for flags in (os.O_RDWR, os.O_RDWR, os.O_RDONLY)]
    os.read(numbers[0], 5)
    yield numbers
    for number in numbers[1:]:
        os.close(number)


def test_one_of_several_has_the_lock_until_it_closes_the_file(module, opened):
    module.lock_open_file(opened[0])
    with pytest.raises(BlockingIOError):
        module.lock_open_file(opened[1])
    with pytest.raises(BlockingIOError):
        module.lock_open_file(opened[2], shared=True)
    os.close(opened[0])
    module.lock_open_file(opened[1])


def test_a_locked_file_can_be_read_and_written_where_it_was(module, opened):
    module.lock_open_file(opened[0])
    assert os.read(opened[0], 2) == b"67"
    assert os.read(opened[2], 9) == b"123456789"
    os.close(opened[0])
