"""A user's own images: listed, decoded once, made a task; and bad input, each with its message."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mutualign.data.datasets import find_task
from mutualign.data.folders.image_cache import decode, scan
from mutualign.data.folders.image_io import decode_image, image_shape
from mutualign.data.folders.listing import list_labelled, list_unlabelled
from mutualign.data.folders.own_images import FolderTask
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from mutualign.evaluation.target_labels import target_accuracy
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment

GRADIENT = np.arange(6 * 6, dtype=np.uint8).reshape(6, 6) * 7


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def write(path: Path, value: int = 100, size: tuple[int, int] = (6, 6), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)
    return path


GOOD = encoded(Image.fromarray(GRADIENT))
DAMAGED = GOOD[:60] + bytes([GOOD[60] ^ 1]) + GOOD[61:]
FLOATS = encoded(Image.fromarray(GRADIENT.astype(np.float32)), "TIFF")  # it can be opened, not decoded


@pytest.fixture
def folders(tmp_path):
    """Two classes of twenty grey images, told apart by their brightness, and ten colour images of both."""
    for number in range(20):
        write(tmp_path / "source" / "dark" / f"{number}.png", number)
        write(tmp_path / "source" / "light" / f"{number}.png", 200 + number)
    for number in range(10):
        write(tmp_path / "target" / "deep" / f"{number}.png", 20 * number, mode="RGB")
        write(tmp_path / "test" / ("dark" if number < 5 else "light") / f"{number}.png", 20 * number, mode="RGB")
    return tmp_path


# Decoding -------------------------------------------------------------------------------------------------------------


def decoded(content: bytes, channels: int, size: int = 6) -> np.ndarray:
    return decode_image(content, "x", ImageShape(channels, size, size)).numpy()


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_a_lossless_image_of_the_wanted_size_keeps_its_pixels(image_format):
    options = {"lossless": True} if image_format == "WEBP" else {}
    grey = Image.fromarray(GRADIENT)
    content = encoded(grey.convert("RGB") if image_format == "WEBP" else grey, image_format, **options)
    assert decoded(content, 3).tolist() == np.repeat(GRADIENT[..., None], 3, axis=2).tolist()


def test_sixteen_bits_become_eight_by_a_division_by_257():
    content = encoded(Image.fromarray(GRADIENT.astype(np.uint16) * 257))
    assert image_shape(content, "x") == (1, 6, 6)
    assert decoded(content, 1)[..., 0].tolist() == GRADIENT.tolist()


def test_transparent_parts_are_seen_on_white():
    clear = np.zeros((6, 6, 4), np.uint8)
    clear[:, 3:] = (10, 20, 30, 255)
    found = decoded(encoded(Image.fromarray(clear)), 3)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 5].tolist() == [10, 20, 30]


def test_a_palette_is_looked_up_and_cmyk_becomes_colour():
    palette = Image.new("P", (6, 6), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert decoded(encoded(palette), 3)[2, 2].tolist() == [9, 8, 7]
    cyan = decoded(encoded(Image.new("CMYK", (6, 6), (255, 0, 0, 0)), "TIFF"), 3)[2, 2]
    assert cyan.tolist() == [0, 255, 255]


def test_an_image_is_turned_upright_by_its_exif_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    content = encoded(Image.fromarray(GRADIENT[:4]), exif=exif)
    assert image_shape(content, "x") == (1, 6, 4)
    assert decode_image(content, "x", ImageShape(1, 6, 4))[..., 0].tolist() == np.rot90(GRADIENT[:4], -1).tolist()


def test_of_an_image_of_another_size_the_middle_square_is_scaled():
    wide = np.full((6, 18), 9, np.uint8)
    wide[:, 6:12] = GRADIENT
    assert decoded(encoded(Image.fromarray(wide)), 1)[..., 0].tolist() == GRADIENT.tolist()
    assert set(decoded(encoded(Image.new("L", (50, 30), 77)), 1).ravel()) == {77}


def png_header(height: int, width: int) -> bytes:
    """A PNG that claims a size and holds hardly any pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9000, 12_000, 40_000])
@pytest.mark.parametrize(
    "read", [image_shape, lambda content, where: decode_image(content, where, ImageShape(1, 6, 6))]
)
def test_a_pixel_bomb_is_refused_by_its_header(read, side, faults):
    bomb = png_header(side, side)
    with (
        faults.injected("parsers are total"),
        pytest.raises(MutualignError, match=r"^bomb.png: .*(pixels|exceeds limit)"),
    ):
        read(bomb, "bomb.png")


@pytest.mark.parametrize("kind", ["truncated", "flipped", "text", "empty", "float"])
def test_a_broken_image_is_an_error_that_names_it(kind, faults):
    content = {
        "truncated": GOOD[:-20],
        "flipped": DAMAGED,
        "text": b"no image",
        "empty": b"",
        "float": FLOATS,
    }[kind]
    with faults.injected("parsers are total"), pytest.raises(MutualignError, match=r"^x: "):
        decoded(content, 1)


# Listing --------------------------------------------------------------------------------------------------------------


def test_class_folders_and_tables_list_the_same_images(folders):
    listed = list_labelled(folders / "source")
    rows = [
        f"source/{path.parent.name}/{path.name},{label}"
        for path, label in zip(listed.paths, listed.labels, strict=True)
    ]
    (folders / "table.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    from_table = list_labelled(folders / "table.csv")
    assert (from_table.paths, from_table.labels) == (listed.paths, listed.labels)
    assert listed.class_counts() == {"dark": 20, "light": 20}

    import pyarrow
    from pyarrow import parquet

    columns = {"path": [row.split(",")[0] for row in rows], "label": list(listed.labels), "more": [1] * 40}
    parquet.write_table(pyarrow.table(columns), folders / "table.parquet")
    assert list_labelled(folders / "table.parquet").paths == listed.paths
    assert list_unlabelled(folders / "table.parquet").labels is None


def test_files_that_are_no_images_are_counted_and_hidden_ones_are_not(folders):
    (folders / "target" / "notes.txt").write_text("x")
    (folders / "target" / ".hidden.png").write_text("x")
    listed = list_unlabelled(folders / "target")
    assert (len(listed), listed.ignored) == (10, 1)


BAD_TABLES = {
    "path,lable\na.png,x": 'no column "label"; there is: path, lable',
    "label\nx": 'no column "path"',
    "path,label": "without a row",
    "path,label\na.png,": 'row 1 has no "label"',
    "path,label\na.png": r"row 1 has 1 value\(s\), the head has 2",
    "": 'no column "path"',
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_a_bad_table_is_an_error_that_says_where(tmp_path, text, faults):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with faults.injected("parsers are total"):
        with pytest.raises(MutualignError, match=BAD_TABLES[text]) as caught:
            list_labelled(tmp_path / "t.csv")
        assert str(tmp_path / "t.csv") in str(caught.value)


@pytest.mark.parametrize("name", ["/dev/zero", "pipe", "folder", "absent", "x" * 5000, "a\0b"])
@pytest.mark.timeout(20)
def test_a_table_that_names_no_regular_file_is_told_of_and_nothing_is_read_for_ever(tmp_path, name, faults):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "t.csv").write_text(f"path\n{write(tmp_path / 'good.png')}\n{name}\n", encoding="utf-8")
    with faults.injected("parsers are total"):
        found = scan(list_unlabelled(tmp_path / "t.csv"), "images")
        assert (len(found.listing), len(found.bad)) == (1, 1)
        assert repr(name)[1:-1] in found.bad[0]


def test_a_file_name_that_no_report_could_tell_is_refused(tmp_path, faults):
    write(tmp_path / "a" / "good.png")
    (tmp_path / "a").rename(tmp_path / os.fsdecode(b"\xff"))
    for read in (list_labelled, list_unlabelled):
        with faults.injected("parsers are total"), pytest.raises(MutualignError, match=r"udcff.*not UTF-8"):
            read(tmp_path)


def test_folders_nested_too_deep_to_list_are_an_error(tmp_path, faults):
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1100):  # by steps, as no path may be as long as all of them
            os.mkdir("d", dir_fd=here)
            here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
            os.close(above)
    finally:
        os.close(here)
    with faults.injected("parsers are total"), pytest.raises(MutualignError, match=r"cannot be listed|no images in it"):
        list_unlabelled(tmp_path)
    subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)  # what pytest cannot do


def test_a_parquet_table_that_is_damaged_anywhere_gives_rows_or_an_error_of_ours(tmp_path, faults):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"path": ["a.png", "b.png"], "label": ["x", "y"]}), tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    for at in range(0, len(whole), 5):
        for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]):
            (tmp_path / "t.parquet").write_bytes(broken)
            with faults.injected("parsers are total"), suppress(MutualignError):
                assert len(list_labelled(tmp_path / "t.parquet")) >= 1


# The cache ------------------------------------------------------------------------------------------------------------


def test_images_are_decoded_once_and_again_where_the_cached_file_is_damaged(folders, tmp_path, monkeypatch):
    scanned = scan(list_unlabelled(folders / "target"), "target")
    first = decode(scanned, ImageShape(3, 6, 6), "target")
    assert first.images.take(torch.arange(10), 0)[:, 0, 0, 0].tolist() == list(range(0, 200, 20))
    (kept,) = (tmp_path / "cache").rglob("*.bytes")
    whole = kept.read_bytes()

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patched:
        patched.setattr("mutualign.data.folders.image_cache.decode_image", fail)
        assert decode(scanned, ImageShape(3, 6, 6), "target").key == first.key
        kept.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        with pytest.raises(AssertionError, match="decoded again"):
            decode(scanned, ImageShape(3, 6, 6), "target")
    decode(scanned, ImageShape(3, 6, 6), "target")
    assert kept.read_bytes() == whole


def test_whatever_is_changed_in_a_cached_file_or_its_description_the_right_images_come_back(folders, tmp_path, faults):
    (folders / "target" / "deep" / "2.png").write_bytes(FLOATS)
    scanned = scan(list_unlabelled(folders / "target"), "target")
    shape = ImageShape(3, 6, 6)
    first = decode(scanned, shape, "target")
    assert first.rows == (0, 1, 3, 4, 5, 6, 7, 8, 9)
    for suffix, every in ((".bytes", 37), (".json", 4)):
        (kept,) = (tmp_path / "cache").rglob(f"*{suffix}")
        whole = kept.read_bytes()
        flipped = (
            whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(0, len(whole), every)
        )
        cut = (whole[:end] for end in range(0, len(whole), 5 * every))
        for broken in (*flipped, *cut, whole + b"0"):
            kept.write_bytes(broken)
            with faults.injected("corruption is found"):
                found = decode(scanned, shape, "target")
                assert found.rows == first.rows
                assert [fault.partition(": ")[0] for fault in found.bad] == [str(scanned.listing.paths[2])]
                brightness = found.images.take(torch.arange(9), 0)[:, :, :, 0]
                assert brightness.amin((1, 2)).tolist() == [0, 20, 60, 80, 100, 120, 140, 160, 180]
                assert brightness.amax((1, 2)).tolist() == [0, 20, 60, 80, 100, 120, 140, 160, 180]
    assert {path.suffix for path in kept.parent.iterdir()} == {".bytes", ".json"}


def test_a_description_that_was_changed_with_care_is_not_believed(folders, tmp_path, faults):
    """The row of a bad image is the one before: every label after it would be another image's."""
    (folders / "target" / "deep" / "2.png").write_bytes(FLOATS)
    scanned = scan(list_unlabelled(folders / "target"), "target")
    first = decode(scanned, ImageShape(3, 6, 6), "target")
    (kept,) = (tmp_path / "cache").rglob("*.json")
    assert "[[2, " in kept.read_text()
    kept.write_text(kept.read_text().replace("[[2, ", "[[1, "))
    with faults.injected("corruption is found"):
        assert decode(scanned, ImageShape(3, 6, 6), "target").rows == first.rows


def test_an_image_that_changes_between_two_readings_is_left_out_and_named(folders, faults):
    scanned = scan(list_unlabelled(folders / "target"), "target")
    changed = write(folders / "target" / "deep" / "4.png", 255, mode="RGB")
    with faults.injected("corruption is found"):
        found = decode(scanned, ImageShape(3, 6, 6), "target")
        assert found.bad == (f"{changed}: changed while it was read",)
        assert len(found.images) == 9


def test_another_content_has_another_key(folders):
    before = FolderTask(folders / "source", folders / "target").load().identity
    write(folders / "target" / "deep" / "3.png", 61, mode="RGB")
    assert FolderTask(folders / "source", folders / "target").load().identity != before


# The task -------------------------------------------------------------------------------------------------------------


def test_folders_make_a_task_whose_labels_go_with_their_images(folders):
    own = FolderTask(folders / "source", folders / "target", target_test=folders / "test")
    task = own.load()
    assert (task.name, task.class_names, task.shape) == ("source-to-target", ("dark", "light"), (3, 6, 6))
    assert (len(task.source_train), len(task.source_test), len(task.target_train)) == (36, 4, 10)
    for part in (task.source_train, task.source_test):
        brightness = part.images.pixels[:, 0, 0, 0]
        assert part.labels.tolist() == (brightness > 100).long().tolist()
    by_brightness = (task.target_test.images.pixels[:, 0, 0, 0] >= 100).long()
    assert target_accuracy(torch.nn.functional.one_hot(by_brightness, 2).float(), task.target_test) == 1.0
    assert FolderTask.of(task.own).load().identity == task.identity


def test_a_target_without_labels_has_no_accuracy(folders):
    task = FolderTask(folders / "source", folders / "target").load()
    assert target_accuracy(torch.zeros(10, 2), task.target_test) is None


def test_an_image_that_cannot_be_read_is_named_and_left_out_with_its_label(folders):
    for number in range(80):
        write(folders / "source" / "dark" / f"more{number}.png", 5)
    (folders / "source" / "dark" / "0.png").write_bytes(b"no image")
    task = FolderTask(folders / "source", folders / "target", source_test=folders / "test").load()
    assert len(task.source_train) == 119
    assert task.source_train.labels.tolist() == (task.source_train.images.pixels[:, 0, 0, 0] > 100).long().tolist()
    assert any("0.png" in note for note in task.notes)
    with pytest.raises(MutualignError, match=r"1 of .* cannot be read; none may be left out\n  bad .*0\.png"):
        FolderTask(folders / "source", folders / "target", on_bad_image="fail").load()


def test_more_than_one_in_a_hundred_unreadable_images_stop_the_run(folders):
    (folders / "target" / "deep" / "3.png").write_bytes(b"no image")
    with pytest.raises(MutualignError, match=r"target: 1 of 10 images cannot be read; up to 1%, here 0, may"):
        FolderTask(folders / "source", folders / "target").load()


def test_the_size_asked_for_is_the_size_given(folders):
    assert FolderTask(folders / "source", folders / "target", image_size=12).load().shape == (3, 12, 12)
    with pytest.raises(MutualignError, match="image size is from 1 to 1024, got 0"):
        FolderTask(folders / "source", folders / "target", image_size=0).load()


def test_an_empty_folder_is_an_error(folders):
    (folders / "empty").mkdir()
    with pytest.raises(MutualignError, match="empty: no images in it"):
        FolderTask(folders / "source", folders / "empty").load()


def test_a_folder_that_is_not_there_is_an_error(folders):
    with pytest.raises(MutualignError, match="absent: no such folder"):
        FolderTask(folders / "absent", folders / "target").load()


def test_images_in_no_class_folder_are_an_error(folders):
    with pytest.raises(MutualignError, match="in no class folder"):
        FolderTask(folders / "target" / "deep", folders / "target").load()


def test_a_single_class_is_an_error(folders):
    with pytest.raises(MutualignError, match='only the class "deep"'):
        FolderTask(folders / "target", folders / "target").load()


def test_a_class_of_one_image_is_an_error(folders):
    write(folders / "source" / "rare" / "a.png")
    with pytest.raises(MutualignError, match='class "rare" has 1 image'):
        FolderTask(folders / "source", folders / "target").load()


def test_a_class_of_the_target_only_is_an_error(folders):
    write(folders / "test" / "lihgt" / "a.png")
    with pytest.raises(MutualignError, match='class "lihgt" is not among the source\'s; did you mean "light"'):
        FolderTask(folders / "source", folders / "target", target_test=folders / "test").load()


def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_do(folders, monkeypatch):
    (folders / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folders / "file"))
    with pytest.raises(MutualignError, match=r"cannot be kept: .*\n  do .*XDG_CACHE_HOME"):
        FolderTask(folders / "source", folders / "target").load()


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["mani", "fast"])
def test_images_from_files_train_to_the_weights_of_the_same_images_by_their_tasks_name(tmp_path, real_data, recipe):
    named = find_task("mnist-mnistm@250").load(real_data)
    test = named.target_test.subset(torch.arange(50))
    named = replace(named, source_test=named.source_train, target_test=test)
    tables = {}
    for part, images, labels in (
        ("source", named.source_train.images, named.source_train.labels),
        ("target", named.target_train.images, None),
        ("test", test.images, test.hidden_labels),
    ):
        lines = ["path,label" if labels is not None else "path"]
        for row, pixels in enumerate(images.pixels):
            place = tmp_path / part / f"{row}.png"
            place.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels.squeeze(-1).numpy()).save(place)
            lines.append(f"{place},{labels[row]}" if labels is not None else str(place))
        tables[part] = tmp_path / f"{part}.csv"
        tables[part].write_text("\n".join(lines), encoding="utf-8")
    own = FolderTask(tables["source"], tables["target"], tables["source"], tables["test"]).load()
    short = ["stages.0.epochs=2", "stages.0.batch_size=50"]
    short += ["stages.1.epochs=2", "stages.1.batch_size=50"] if recipe == "mani" else ["stages.0.epoch_steps=0"]
    weights = []
    for name, task in (("named", named), ("own", own)):
        experiment = Experiment.start(load_recipe(recipe, short), task, 0, tmp_path / name)
        experiment.run()
        weights.append(experiment.folder.load_tensors("last")[0])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
