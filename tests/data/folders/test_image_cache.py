"""The cache of decoded images: used when it is whole, made again when it is not, and watched while it is used."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from mutualign.data.folders import parallel
from mutualign.data.folders.image_cache import decode
from mutualign.data.folders.image_io import decode_image, read_image_file
from mutualign.data.folders.listing import list_unlabelled
from mutualign.data.folders.parallel import in_parallel
from mutualign.data.folders.scan import scan
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from tests.data.folders.images import FLOATS, write

SHAPE = ImageShape(3, 6, 6)
BRIGHTNESS = list(range(20, 220, 20))


def cached_file(folder: Path, suffix: str = ".bytes") -> Path:
    (found,) = (folder / "cache").rglob(f"*{suffix}")
    return found


def test_images_are_decoded_once_and_again_if_the_cached_file_is_damaged(folders, monkeypatch):
    scanned = scan(list_unlabelled(folders / "target"), "target")
    first = decode(scanned, SHAPE, "target")
    assert first.images.take(torch.arange(10), 0)[:, 0, 0, 0].tolist() == BRIGHTNESS
    kept = cached_file(folders)
    whole = kept.read_bytes()

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patched:
        patched.setattr("mutualign.data.folders.image_cache.decode_image", fail)
        assert decode(scanned, SHAPE, "target").key == first.key
        kept.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        with pytest.raises(AssertionError, match="decoded again"):
            decode(scanned, SHAPE, "target")
    decode(scanned, SHAPE, "target")
    assert kept.read_bytes() == whole


def test_whatever_is_changed_in_a_cached_file_or_its_description_the_right_images_come_back(folders):
    (folders / "target" / "deep" / "2.png").write_bytes(FLOATS)
    scanned = scan(list_unlabelled(folders / "target"), "target")
    first = decode(scanned, SHAPE, "target")
    assert first.rows == (0, 1, 3, 4, 5, 6, 7, 8, 9)
    expected = [value for value in BRIGHTNESS if value != 60]
    for suffix, every in ((".bytes", 97), (".json", 13)):
        kept = cached_file(folders, suffix)
        whole = kept.read_bytes()
        flipped = (
            whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(0, len(whole), every)
        )
        cut = (whole[:end] for end in range(0, len(whole), 5 * every))
        for broken in (*flipped, *cut, whole + b"0"):
            kept.write_bytes(broken)
            found = decode(scanned, SHAPE, "target")
            brightness = found.images.take(torch.arange(9), 0)[:, :, :, 0]
            assert brightness.amin((1, 2)).tolist() == brightness.amax((1, 2)).tolist() == expected
    assert {path.suffix for path in kept.parent.iterdir()} == {".bytes", ".json"}


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_images_that_were_decoded_before_an_interrupt_are_not_decoded_again(folders, monkeypatch, interrupt):
    scanned = scan(list_unlabelled(folders / "target"), "target")
    decoded, last = [], "6.png"

    def decode_until_last(content: bytes, path: Path, shape: ImageShape) -> torch.Tensor:
        if path.name == last:
            raise interrupt
        decoded.append(path.name)
        return decode_image(content, path, shape)

    monkeypatch.setattr("mutualign.data.folders.image_cache.decode_image", decode_until_last)
    with pytest.raises(interrupt):
        decode(scanned, SHAPE, "target")
    decoded.clear()
    last = ""
    found = decode(scanned, SHAPE, "target")
    assert sorted(decoded) == [f"{number}.png" for number in range(6, 10)]
    assert found.images.take(torch.arange(10), 0)[:, 0, 0, 0].tolist() == BRIGHTNESS
    assert len(list((folders / "cache").rglob("*.bytes"))) == 1


def test_rows_of_another_set_are_used_only_if_its_file_is_whole(folders):
    ten = scan(list_unlabelled(folders / "target"), "target")
    nine = replace(ten, listing=ten.listing.take(range(1, 10)), digests=ten.digests[1:], shapes=ten.shapes[1:])
    decode(ten, SHAPE, "target")
    kept = cached_file(folders)
    kept.write_bytes(bytes([kept.read_bytes()[0] ^ 1]) + kept.read_bytes()[1:])
    found = decode(nine, SHAPE, "target")
    assert found.images.take(torch.arange(9), 0)[:, 0, 0, 0].tolist() == BRIGHTNESS[1:]


def test_a_description_with_a_plausible_change_is_not_used(folders):
    """If the row of a bad image were the one before, every label after it would be another image's."""
    (folders / "target" / "deep" / "2.png").write_bytes(FLOATS)
    scanned = scan(list_unlabelled(folders / "target"), "target")
    first = decode(scanned, SHAPE, "target")
    kept = cached_file(folders, ".json")
    assert "[[2, " in kept.read_text()
    kept.write_text(kept.read_text().replace("[[2, ", "[[1, "))
    assert decode(scanned, SHAPE, "target").rows == first.rows


def test_an_image_that_changes_between_two_readings_is_left_out_and_named(folders):
    scanned = scan(list_unlabelled(folders / "target"), "target")
    changed = write(folders / "target" / "deep" / "4.png", 255, mode="RGB")
    found = decode(scanned, SHAPE, "target")
    assert found.bad == (f"{changed}: changed while it was read",)
    assert len(found.images) == 9


def test_an_image_that_could_not_be_read_for_a_moment_is_read_later_and_one_that_never_can_costs_no_other(
    folders, monkeypatch
):
    (folders / "target" / "deep" / "2.png").write_bytes(FLOATS)
    scanned = scan(list_unlabelled(folders / "target"), "target")

    def fail(path: Path) -> bytes:
        if path.name == "7.png":
            raise MutualignError(f"{path}: Stale file handle")
        return read_image_file(path)

    with monkeypatch.context() as patched:
        patched.setattr("mutualign.data.folders.image_cache.read_image_file", fail)
        first = decode(scanned, SHAPE, "target")
    assert first.rows == (0, 1, 3, 4, 5, 6, 8, 9)
    decoded = Mock(side_effect=decode_image)
    monkeypatch.setattr("mutualign.data.folders.image_cache.decode_image", decoded)
    found = decode(scanned, SHAPE, "target")
    assert (found.rows, len(found.bad)) == ((0, 1, 3, 4, 5, 6, 7, 8, 9), 1)
    expected = [value for value in BRIGHTNESS if value != 60]
    assert found.images.take(torch.arange(9), 0)[:, 0, 0, 0].tolist() == expected
    assert {call.args[1].name for call in decoded.call_args_list} == {"2.png", "7.png"}
    kept = cached_file(folders).stat()
    assert decode(scanned, SHAPE, "target").rows == found.rows
    assert cached_file(folders).stat() == kept


def test_a_cached_file_that_is_written_to_while_it_is_used_is_an_error_and_one_that_is_replaced_is_not(folders):
    images = decode(scan(list_unlabelled(folders / "target"), "target"), SHAPE, "target").images
    kept, rows = cached_file(folders), torch.arange(10)
    copy = kept.with_name("copy")
    copy.write_bytes(bytes(kept.stat().st_size))
    copy.replace(kept)
    assert images.take(rows, 0)[:, 0, 0, 0].tolist() == BRIGHTNESS  # of the file that was mapped
    images = decode(scan(list_unlabelled(folders / "target"), "target"), SHAPE, "target").images
    with kept.open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(MutualignError, match="was changed while it was in use"):
        images.take(rows, 0)
    images = decode(scan(list_unlabelled(folders / "target"), "target"), SHAPE, "target").images
    os.truncate(kept, 10)  # reading the mapped pages would end the process
    for use in (lambda: images.take(rows, 0), lambda: images.subset(rows), lambda: images.to(torch.device("cpu"))):
        with pytest.raises(MutualignError, match="was changed while it was in use"):
            use()


def test_a_link_in_place_of_a_cached_file_is_replaced_and_not_followed(folders):
    scanned = scan(list_unlabelled(folders / "target"), "target")
    decode(scanned, SHAPE, "target")
    kept, secret = cached_file(folders), folders / "secret"
    secret.write_bytes(b"secret")
    kept.unlink()
    kept.symlink_to(secret)
    decode(scanned, SHAPE, "target")
    assert secret.read_bytes() == b"secret"
    assert not kept.is_symlink()


# Many files at once ---------------------------------------------------------------------------------------------------

PATHS = [Path(f"{number}") for number in range(300)]


def test_results_are_in_the_order_of_the_files():
    def slow_at_first(path: Path) -> str:
        time.sleep(0.01 if int(path.name) % 7 == 0 else 0)
        return path.name

    assert list(in_parallel(slow_at_first, PATHS, "testing")) == [path.name for path in PATHS]


def test_calls_in_flight_stay_within_the_limit_of_memory_and_a_larger_one_is_alone(monkeypatch):
    monkeypatch.setattr(parallel, "MOST_BYTES", 100)
    costs = [30, 250, 60, 60, 10, 10, 100, 90] * 10
    in_flight, lock, most = [], threading.Lock(), []

    def call(path: Path) -> None:
        cost = costs[int(path.name)]
        with lock:
            in_flight.append(cost)
            most.append((sum(in_flight), len(in_flight)))
        time.sleep(0.001)
        with lock:
            in_flight.remove(cost)

    list(in_parallel(call, PATHS[: len(costs)], "testing", lambda path: costs[int(path.name)]))
    assert len(most) == len(costs)
    assert all(used <= 100 or count == 1 for used, count in most)
    assert max(count for _, count in most) > 1


@pytest.mark.parametrize("where", ["waiting", "consuming"])
def test_an_interrupt_ends_a_long_loop_at_once(where):
    done, numbers = [], itertools.count()

    def call(path: Path) -> None:
        time.sleep(0.05)
        done.append(path)
        if next(numbers) == 6:
            os.kill(os.getpid(), signal.SIGINT)

    def consume() -> None:
        for _ in in_parallel(call, PATHS * 10, "testing"):  # 3000 calls: 25 s by six threads
            time.sleep(1.0 if where == "consuming" else 0.0)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        consume()
    assert time.monotonic() - start < 10
    finished = len(done)
    time.sleep(0.2)
    assert len(done) == finished < 1000
