"""Listing of images: folders with links, classes that would vanish, and tables as other systems write them."""

from __future__ import annotations

import os
import socket
import subprocess
import unicodedata
from contextlib import suppress
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from mutualign.data.folders import walk as walk_module
from mutualign.data.folders.class_names import class_indices
from mutualign.data.folders.listing import list_labelled, list_unlabelled
from mutualign.data.folders.scan import scan
from mutualign.errors import MutualignError
from tests.data.folders.images import write

# Folders --------------------------------------------------------------------------------------------------------------


def test_other_files_are_counted_by_extension_and_what_systems_leave_is_not(folders):
    for name in ("notes.txt", "more.TXT", "photo.heic", "README", ".DS_Store", "Thumbs.db", ".hidden.png"):
        (folders / "target" / name).write_text("x")
    (folders / "target" / "__MACOSX").mkdir()
    (folders / "target" / "__MACOSX" / "0.png").write_text("x")
    listed = list_unlabelled(folders / "target")
    kinds, heic = listed.summary.split("; ")[1:]
    assert kinds == "skipped: 4 other file(s): 1 .TXT, 1 .heic, 1 .txt, 1 without extension"
    assert "pillow_heif" in heic


def test_links_to_class_folders_and_to_images_are_followed(folders):
    expected = list_labelled(folders / "source")
    (folders / "linked").mkdir()
    (folders / "linked" / "dark").symlink_to("../source/dark")
    (folders / "linked" / "light").mkdir()
    for path in (folders / "source" / "light").iterdir():
        (folders / "linked" / "light" / path.name).symlink_to(path)
    found = list_labelled(folders / "linked")
    assert (found.labels, len(found.skipped)) == (expected.labels, 0)
    assert scan(found, "images").digests == scan(expected, "images").digests


def test_links_that_lead_back_end_and_are_counted_with_broken_ones(folders):
    deep = folders / "target" / "deep"
    (deep / "back").symlink_to(folders / "target")
    (deep / "here").symlink_to(deep)
    (deep / "itself").symlink_to("itself")
    (deep / "dead").symlink_to("nowhere")
    found = list_unlabelled(folders / "target")
    assert len(found) == 10
    assert sorted(path.name for path in found.skipped.loops) == ["back", "here"]
    assert sorted(path.name for path in found.skipped.broken) == ["dead", "itself"]
    assert "2 broken link(s)" in found.summary


def test_folders_that_links_repeat_without_end_are_refused(tmp_path, monkeypatch):
    for number in range(20):  # each folder has two links to the next: 2^20 paths
        (tmp_path / f"{number}").mkdir()
        for name in "ab":
            (tmp_path / f"{number}" / name).symlink_to(f"../{number + 1}")
    write(tmp_path / "20" / "a.png")
    monkeypatch.setattr(walk_module, "MOST_FILES", 1000)
    with pytest.raises(MutualignError, match="more than 1,000 files; do links repeat"):
        list_unlabelled(tmp_path / "0")


def test_whatever_has_the_name_of_an_image_is_read_or_named(folders):
    deep = folders / "target" / "deep"
    (deep / "dead.png").symlink_to("nowhere.png")
    os.mkfifo(deep / "pipe.jpg")
    here = socket.socket(socket.AF_UNIX)
    here.bind(os.path.relpath(deep / "s.gif"))
    here.close()
    found = scan(list_unlabelled(folders / "target"), "target")
    assert len(found.listing) == 10
    assert [Path(fault.partition(":")[0]).name for fault in found.bad] == ["dead.png", "pipe.jpg", "s.gif"]


def test_a_folder_that_cannot_be_listed_is_an_error_that_names_it(folders, monkeypatch):
    scandir = os.scandir

    def deny(path):
        if Path(path).name == "light":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(MutualignError, match=r"light: cannot be listed: Permission denied\n  hint"):
        list_labelled(folders / "source")


def test_class_folders_without_an_image_are_known(folders):
    (folders / "source" / "empty").mkdir()
    (folders / "source" / "texts").mkdir()
    (folders / "source" / "texts" / "a.txt").write_text("x")
    (folders / "source" / "unmounted").symlink_to("/nowhere/at/all")
    (folders / "source" / ".left-out").mkdir()
    assert list_labelled(folders / "source").empty_classes == ("empty", "texts", "unmounted")


def test_class_names_are_composed_and_without_blanks(tmp_path):
    for name in (unicodedata.normalize("NFD", "café"), "tea "):
        write(tmp_path / name / "a.png")
    assert list_labelled(tmp_path).class_names() == ("café", "tea")


def test_a_name_that_no_report_could_show_is_refused(tmp_path):
    write(tmp_path / "a" / "good.png")
    (tmp_path / "a").rename(tmp_path / os.fsdecode(b"\xff"))
    for read in (list_labelled, list_unlabelled):
        with pytest.raises(MutualignError, match=r"udcff.*not UTF-8"):
            read(tmp_path)


def test_folders_nested_too_deep_to_list_are_an_error(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(20):  # step by step, because no path may be that long
            os.mkdir("d" * 250, dir_fd=here)
            here, above = os.open("d" * 250, os.O_RDONLY, dir_fd=here), here
            os.close(above)
    finally:
        os.close(here)
    with pytest.raises(MutualignError, match=r"cannot be listed: File name too long"):
        list_unlabelled(tmp_path)
    subprocess.run(["rm", "-r", str(tmp_path / ("d" * 250))], check=True)  # pytest cannot


def test_a_place_without_images_is_an_error_that_says_what_is_there(folders):
    (folders / "empty").mkdir()
    (folders / "empty" / "a.heic").write_text("x")
    for name, message in (
        ("empty", r"empty: no images in it; 1 other file\(s\): 1 .heic; .*pillow_heif"),
        ("absent", "absent: no such folder"),
        ("source/dark/0.png", "a file, not a folder of images or a table"),
    ):
        with pytest.raises(MutualignError, match=message):
            list_unlabelled(folders / name)
    with pytest.raises(MutualignError, match=r"in no class folder, such as 0\.png"):
        list_labelled(folders / "target" / "deep")


# Tables ---------------------------------------------------------------------------------------------------------------


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_class_folders_and_tables_list_the_same_images(folders):
    listed = list_labelled(folders / "source")
    rows = [
        f"source/{path.parent.name}/{path.name},{label}"
        for path, label in zip(listed.paths, listed.labels, strict=True)
    ]
    from_csv = list_labelled(table(folders / "table.csv", "\n".join(["path,label", *rows])))
    assert (from_csv.paths, from_csv.labels) == (listed.paths, listed.labels)
    assert listed.class_counts() == {"dark": 20, "light": 20}
    columns = {"path": [row.split(",")[0] for row in rows], "label": list(listed.labels), "more": [1] * 40}
    parquet.write_table(pyarrow.table(columns), folders / "table.parquet")
    assert list_labelled(folders / "table.parquet").paths == listed.paths
    assert list_unlabelled(folders / "table.parquet").labels is None


BAD_TABLES = {
    "path,lable\na.png,x": 'no column "label"; it has: path, lable',
    "label\nx": 'no column "path"',
    "path,label": "without a row",
    "path,label\na.png, ": 'row 1 has no "label"',
    "path,label\na.png": r"row 1 has 1 value\(s\), the head has 2",
    "path,label\na.png,x\na.png,y": 'row 2 labels .*a.png "y", an earlier row "x"',
    "path,label, label\na.png,x,y": '2 columns "label"\n  hint:    remove or rename',
    "path,label,path\na.png,x,a.png": '2 columns "path"',
    "": 'no column "path"',
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_a_bad_table_is_an_error_that_says_where(tmp_path, text):
    with pytest.raises(MutualignError, match=BAD_TABLES[text]) as caught:
        list_labelled(table(tmp_path / "t.csv", text))
    assert str(tmp_path / "t.csv") in str(caught.value)


def test_columns_that_are_not_read_may_be_there_twice(tmp_path):
    written = table(tmp_path / "t.csv", "path,label,,,label\na.png,x,,,y")
    assert list_unlabelled(written).paths == (tmp_path / "a.png",)


def test_blanks_backslashes_and_decomposed_names_in_a_table_lead_to_the_files(tmp_path):
    paths = [write(tmp_path / name) for name in ("a.png", "b/c.png", "café.png", " d.png")]
    written = ["a.png ", "b\\c.png", unicodedata.normalize("NFD", "café.png"), " d.png"]
    rows = [f"{path}, {label}" for path, label in zip(written, ("x", "x ", "y", "y"), strict=True)]
    found = list_labelled(table(tmp_path / "t.csv", "\n".join(["path, label", *rows])))
    assert [path.resolve() for path in found.paths] == [path.resolve() for path in paths]
    assert found.labels == ("x", "x", "y", "y")


def test_labels_of_a_parquet_table_may_be_bytes_and_numbers(tmp_path):
    for labels, expected in (([b"x", b"y"], ("x", "y")), ([1.0, 2.0], ("1.0", "2.0")), ([3, 4], ("3", "4"))):
        parquet.write_table(pyarrow.table({"path": [b"a.png", b"b.png"], "label": labels}), tmp_path / "t.parquet")
        found = list_labelled(tmp_path / "t.parquet")
        assert (found.labels, found.paths[0]) == (expected, tmp_path / "a.png")
    parquet.write_table(pyarrow.table({"path": ["a.png"], "label": [b"\xff"]}), tmp_path / "t.parquet")
    with pytest.raises(MutualignError, match="is not UTF-8 text"):
        list_labelled(tmp_path / "t.parquet")


def test_a_class_as_a_whole_number_and_as_a_float_is_one_class_and_not_two(tmp_path):
    assert class_indices(["2.0", "1", "10.0"], ("1", "10", "2"), "here") == [2, 0, 1]
    with pytest.raises(MutualignError, match=r'class "1\.5" is not among'):
        class_indices(["1.5"], ("1", "2"), "here")
    both = list_labelled(table(tmp_path / "t.csv", "path,label\na.png,0\nb.png,0.0"))
    with pytest.raises(MutualignError, match=r'the classes "0" and "0\.0" are the same number'):
        both.class_names()


@pytest.mark.parametrize("name", ["/dev/zero", "pipe", "folder", "absent", "x" * 5000, "a\0b"])
@pytest.mark.timeout(20)
def test_a_row_that_is_no_regular_file_is_named_and_nothing_is_read_for_ever(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    rows = table(tmp_path / "t.csv", f"path\n{write(tmp_path / 'good.png')}\n{name}\n")
    found = scan(list_unlabelled(rows), "images")
    assert (len(found.listing), len(found.bad)) == (1, 1)
    assert repr(name)[1:-1] in found.bad[0]


def test_a_parquet_table_that_is_damaged_anywhere_has_rows_or_is_an_error_of_ours(tmp_path):
    parquet.write_table(pyarrow.table({"path": ["a.png", "b.png"], "label": ["x", "y"]}), tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    for at in range(0, len(whole), 17):
        for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]):
            (tmp_path / "t.parquet").write_bytes(broken)
            with suppress(MutualignError):
                assert len(list_labelled(tmp_path / "t.parquet")) >= 1
