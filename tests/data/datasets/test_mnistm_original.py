"""The original release of MNIST-M, made small: as a folder, as an archive, and with every fault."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mutualign.data.datasets import mnistm_original
from mutualign.data.datasets.mnistm_original import load_original, load_task
from mutualign.data.types import LabelledImages, UnlabelledImages
from mutualign.errors import MutualignError

TASK = "mnist-mnistm-original"
LABELS = {"train": [5, 0, 9, 4, 1], "test": [7, 2, 0]}
NOISE = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
PIXELS = {"train": NOISE[:5], "test": NOISE[5:]}

Files = dict[str, bytes]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def release() -> Files:
    """The files of a small release, by name below `mnist_m/`."""
    files: Files = {}
    for split, labels in LABELS.items():
        lines = [f"{i:08}.png {label}\n" for i, label in enumerate(labels)]
        files[f"mnist_m_{split}_labels.txt"] = "".join(lines).encode()
        for i, pixels in enumerate(PIXELS[split]):
            files[f"mnist_m_{split}/{i:08}.png"] = png(pixels)
    return files


def as_folder(files: Files, data: Path) -> Path:
    for name, content in files.items():
        path = data / "mnist_m" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return data / "mnist_m"


def as_archive(files: Files, data: Path, prefix: str = "mnist_m/") -> Path:
    data.mkdir(exist_ok=True)
    with tarfile.open(data / "mnist_m.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data / "mnist_m.tar.gz"


FORMS: list[Callable[[Files, Path], Path]] = [as_folder, as_archive]
both_forms = pytest.mark.parametrize("write", FORMS)


def check(found: mnistm_original.Original) -> None:
    for split, images in (("train", found.train), ("test", found.test)):
        assert images.images.pixels.dtype == torch.uint8
        assert images.images.pixels.tolist() == PIXELS[split].tolist()
        assert images.reveal_labels().tolist() == LABELS[split]


@both_forms
def test_folder_and_archive_give_the_same_images_and_labels(tmp_path, write):
    write(release(), tmp_path / "data")
    check(load_original(tmp_path / "data", TASK))


def test_the_identity_has_the_counts_and_is_the_same_for_folder_and_archive(tmp_path, monkeypatch):
    as_folder(release(), tmp_path / "a")
    as_archive(release(), tmp_path / "b")
    identity = load_original(tmp_path / "a", TASK).identity
    assert identity == load_original(tmp_path / "b", TASK).identity
    assert identity.startswith("5 train / 3 test images (NOT the complete release of 59001 / 9001), SHA-256 ")
    as_archive(
        release() | {"mnist_m_test_labels.txt": b"00000000.png 7\n00000001.png 2\n00000002.png 1\n"}, tmp_path / "c"
    )
    assert load_original(tmp_path / "c", TASK).identity != identity
    monkeypatch.setattr(mnistm_original, "COMPLETE", {"train": 5, "test": 3})
    assert "(the complete release)" in load_original(tmp_path / "a", TASK).identity


def test_images_are_in_the_order_of_the_list_and_unlisted_ones_are_left_out(tmp_path):
    as_folder(release() | {"mnist_m_train_labels.txt": b"00000003.png 4\r\n\r\n00000001.png 0"}, tmp_path)
    found = load_original(tmp_path, TASK)
    assert found.train.images.pixels.tolist() == PIXELS["train"][[3, 1]].tolist()
    assert found.train.reveal_labels().tolist() == [4, 0]


@both_forms
def test_the_second_time_nothing_is_decoded_and_after_a_change_all_is(tmp_path, monkeypatch, write):
    write(release(), tmp_path)
    load_original(tmp_path, TASK)
    monkeypatch.setattr(mnistm_original, "decode_rgb", None)
    check(load_original(tmp_path, TASK))
    write(release() | {"mnist_m_test_labels.txt": b"00000000.png 1\n"}, tmp_path)
    with pytest.raises(TypeError):  # decode_rgb is None
        load_original(tmp_path, TASK)


def test_a_folder_comes_before_an_archive(tmp_path):
    as_folder(release(), tmp_path)
    (tmp_path / "mnist_m.tar.gz").write_bytes(b"not looked at")
    check(load_original(tmp_path, TASK))


def test_with_neither_the_error_says_where_to_put_it_and_what_else_there_is(tmp_path):
    with pytest.raises(MutualignError) as error:
        load_original(tmp_path, TASK)
    for part in (TASK, "mnist_m.tar.gz", "mnist_m/", str(tmp_path), "no lasting mirror", "--task mnist-mnistm`"):
        assert part in str(error.value)


def changed(**contents: bytes | None) -> Files:
    """The release with some files replaced, or left out for None."""
    names = {"labels": "mnist_m_train_labels.txt", "image": "mnist_m_train/00000002.png"}
    files = release() | {names[key]: content for key, content in contents.items() if content is not None}
    return {name: files[name] for name in files if not (name in names.values() and None in contents.values())}


FAULTS = {
    "no list of labels": (changed(labels=None, image=None), "mnist_m_train_labels.txt: no such file"),
    "an empty list": (changed(labels=b"\n \n"), "mnist_m_train_labels.txt: lists no images"),
    "a line without a label": (changed(labels=b"00000000.png 5\n00000001.png\n"), "line 2: '00000001.png', expected"),
    "a line with a path": (changed(labels=b"../../00000000.png 5\n"), "line 1: .*expected a line like"),
    "a line with a word": (changed(labels=b"00000000.png five\n"), "line 1: .*five.*, expected a line like"),
    "a line of rubbish": (changed(labels=b"\xff\xfe\x00" * 100), "line 1: .*expected a line like"),
    "a label too large": (changed(labels=b"00000000.png 5\n00000001.png 10\n"), "line 2: class 10, expected 0 to 9"),
    "a label too small": (changed(labels=b"00000000.png -1\n"), "line 1: class -1, expected 0 to 9"),
    "an image listed twice": (
        changed(labels=b"00000000.png 5\n00000000.png 5\n"),
        "line 2: 00000000.png is listed twice",
    ),
    "an image missing": (
        changed(labels=b"00000000.png 5\n00000007.png 5\n"),
        "1 of the 2 images in mnist_m_train_labels.txt are missing\n  missing  mnist_m_train/00000007.png\n",
    ),
    "an image not of its size": (changed(image=png(NOISE[0, :28])), "00000002.png: an image of 28x32 pixels"),
    "an image cut off": (changed(image=png(NOISE[0])[:-500]), "00000002.png: not a readable PNG"),
    "an image of another format": (changed(image=b"BM" + bytes(100)), "00000002.png: not a readable PNG"),
    "an image too large a file": (changed(image=png(NOISE[0]) + bytes(1 << 20)), "00000002.png: larger than 1048576"),
}


@both_forms
@pytest.mark.parametrize(("files", "fault"), FAULTS.values(), ids=FAULTS)
def test_every_fault_is_an_error_that_names_the_place_and_the_file(tmp_path, write, files, fault):
    place = write(files, tmp_path)
    with pytest.raises(MutualignError, match=fault) as error:
        load_original(tmp_path, TASK)
    assert str(error.value).startswith(str(place))


def test_links_devices_and_paths_that_lead_elsewhere_are_passed_over(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(NOISE[7]))
    data = tmp_path / "data"
    data.mkdir()
    with tarfile.open(data / "mnist_m.tar.gz", "w:gz") as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, len(content)
            archive.addfile(member, io.BytesIO(content))

        add("mnist_m", tarfile.DIRTYPE)
        for name in ("/etc/x", "../x", "mnist_m/../../x", "mnist_m/mnist_m_train/../../../x", "x/mnist_m/a.png"):
            add(name, content=b"evil")
        add("mnist_m_train/00000000.png", content=b"without the folder's name")
        add("mnist_m/mnist_m_train/0000000.png", content=b"seven digits")
        add("mnist_m/mnist_m_train/00000000.png.exe", content=b"another name")
        for name, content in release().items():
            add(f"mnist_m/{name}", content=content)
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):  # after the regular file: they must not replace it
            add("mnist_m/mnist_m_train/00000000.png", kind, link=str(secret))
            add("mnist_m/mnist_m_test/00000000.png", kind, link="mnist_m/mnist_m_train/00000001.png")
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            add("mnist_m/mnist_m_train/00000000.png", kind)
    check(load_original(data, TASK))
    assert sorted(path.name for path in tmp_path.rglob("*") if "cache" not in path.parts) == sorted(
        ["data", "mnist_m.tar.gz", "secret.png"]
    )


def test_an_image_that_is_only_a_link_is_missing(tmp_path):
    files = release()
    del files["mnist_m_train/00000000.png"]
    with gzip.open(tmp_path / "mnist_m.tar.gz", "wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        link = tarfile.TarInfo("mnist_m/mnist_m_train/00000000.png")
        link.type, link.linkname = tarfile.SYMTYPE, "00000001.png"
        archive.addfile(link)
        for name, content in files.items():
            member = tarfile.TarInfo(f"mnist_m/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    missing = pytest.raises(MutualignError, match=r"1 of the 5 images .*\n.*mnist_m_train/00000000.png")
    with missing:
        load_original(tmp_path, TASK)


def test_an_archive_that_unzips_to_too_much_or_has_too_many_members_is_refused(tmp_path, monkeypatch):
    as_archive({"padding": bytes(1 << 20)} | release(), tmp_path)
    monkeypatch.setattr(mnistm_original, "MAX_BYTES", 1 << 20)
    too_much = pytest.raises(MutualignError, match=r"mnist_m.tar.gz: unzips to more than 1 MiB")
    with too_much:
        load_original(tmp_path, TASK)
    monkeypatch.undo()
    monkeypatch.setattr(mnistm_original, "MAX_FILES", 10)
    too_many = pytest.raises(MutualignError, match=r"mnist_m.tar.gz: more than 10 members")
    with too_many:
        load_original(tmp_path, TASK)


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_FILES"])
def test_a_folder_with_too_much_in_it_is_refused(tmp_path, monkeypatch, limit):
    as_folder(release(), tmp_path)
    monkeypatch.setattr(mnistm_original, limit, 9)
    too_much = pytest.raises(MutualignError, match=r"mnist_m: 10 files with .* too many")
    with too_much:
        load_original(tmp_path, TASK)


def test_an_archive_damaged_anywhere_is_never_believed(tmp_path):
    path = as_archive(release(), tmp_path)
    good = path.read_bytes()
    name_ends = good.index(
        b"\0", 10
    )  # gzip's header keeps the name of the unzipped file, for which there is no checksum
    for i in range(name_ends, len(good), len(good) // 30):
        for content in (good[:i], good[:i] + bytes([good[i] ^ 0x10]) + good[i + 1 :]):
            path.write_bytes(content)
            refused = pytest.raises(MutualignError, match=r"mnist_m\.tar\.gz: cannot be read to its end")
            with refused:
                load_original(tmp_path, TASK)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 511), st.binary(min_size=1, max_size=12))
def test_whatever_the_tar_headers_say_the_answer_is_images_or_an_error_of_ours(tmp_path, block, start, noise):
    content = bytearray(gzip.decompress(ARCHIVE))
    at = 512 * block + start
    content[at : at + len(noise)] = noise
    (tmp_path / "mnist_m.tar.gz").write_bytes(gzip.compress(bytes(content), 1))
    try:
        found = load_original(tmp_path, TASK)
    except MutualignError:
        return
    assert found.train.images.pixels.shape == (len(found.train), 32, 32, 3)


def _archive_in_memory() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, content in release().items():
            member = tarfile.TarInfo(f"mnist_m/{name}")
            member.size, member.pax_headers = len(content), {"comment": "x", "mtime": "1.5"}
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = _archive_in_memory()


def test_the_task_pads_the_source_digits_and_says_so(tmp_path, monkeypatch):
    as_folder(release(), tmp_path)
    digits = torch.randint(1, 256, (4, 28, 28, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mnist = LabelledImages(UnlabelledImages(digits), torch.arange(4))
    monkeypatch.setattr(mnistm_original, "load_mnist", lambda folder, task: (mnist, mnist))
    task = load_task(tmp_path)
    assert task.shape == (3, 32, 32)
    for i in range(4):
        for row in range(32):
            for column in range(32):
                inside = 2 <= row < 30 and 2 <= column < 30
                expected = digits[i, row - 2, column - 2, 0] if inside else 0
                assert task.source_train.images.pixels[i, row, column, 0] == expected
    assert task.source_test.labels.tolist() == [0, 1, 2, 3]
    assert task.target_train.images.pixels.tolist() == PIXELS["train"].tolist()
    assert task.identity.startswith(
        "MNIST 28x28 zero-padded to 32x32, 60000 train / 10000 test; target MNIST-M, variant original: the release of "
        "32x32 images, not resized, 5 train / 3 test images (NOT the complete release of 59001 / 9001), SHA-256 "
    )
