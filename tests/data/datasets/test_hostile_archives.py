"""Archives from strangers: whatever a member says, nothing is written, little is read, and it does not take long."""

from __future__ import annotations

import gzip
import itertools
import tarfile
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from mutualign.data.datasets import mnistm_original
from mutualign.data.datasets.mnistm_original import load_original
from mutualign.errors import MutualignError
from tests.data.datasets.test_mnistm_original import NOISE, TASK, check, png, release

FIRST = "mnist_m/mnist_m_train/00000000.png"


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> bytes:
    """A member as it lies in an archive: its headers and its content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.pax_headers = kind, link, len(content), pax
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512)


RELEASE = b"".join(member(f"mnist_m/{name}", content) for name, content in release().items())
END = bytes(1024)


def load(data: Path, content: bytes) -> mnistm_original.Original:
    """The release in the archive, whose members are `content`; whatever comes of it, nothing may be written."""
    data.mkdir(exist_ok=True)
    (data / "mnist_m.tar.gz").write_bytes(gzip.compress(content, 1))
    try:
        return load_original(data, TASK)
    finally:
        left = {path.relative_to(data.parent).parts[0] for path in data.parent.rglob("*")}
        assert left <= {"data", "cache"}
        assert [path.name for path in data.iterdir()] == ["mnist_m.tar.gz"]


ELSEWHERE = ["/var/x", "../x", "mnist_m/mnist_m_train/../../x", "mnist_m\\..\\x", "~/x"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_path_that_leads_elsewhere_is_passed_over_however_it_is_written(tmp_path, name):
    plain = tarfile.TarInfo(name)
    plain.size = 4
    ways = [
        plain.tobuf(tarfile.USTAR_FORMAT) + b"evil" + bytes(508),
        member("harmless", b"evil", path=name),  # what an extended header says counts
        member(FIRST, b"evil", path=name),
        _long_name(name + "/" * 110) + member("harmless", b"evil"),
    ]
    for way in ways:
        check(load(tmp_path / "data", way + RELEASE + way + END))


def _long_name(name: str) -> bytes:
    """GNU tar's member before a member, that holds its name."""
    return member("././@LongLink", name.encode() + b"\0", kind=tarfile.GNUTYPE_LONGNAME)


LINKS = [
    [("mnist_m/mnist_m_train", tarfile.SYMTYPE, "/etc")],  # a folder that is elsewhere
    [("mnist_m", tarfile.SYMTYPE, "..")],
    [("a", tarfile.SYMTYPE, "."), ("a/b", tarfile.SYMTYPE, ".."), (FIRST, tarfile.SYMTYPE, "a/b/../../etc/passwd")],
    [(FIRST, tarfile.SYMTYPE, FIRST)],  # to itself
    [("x", tarfile.SYMTYPE, "/etc/passwd"), (FIRST, tarfile.LNKTYPE, "x")],  # a hard link to a link
    [(FIRST, tarfile.LNKTYPE, "../../../etc/passwd")],
    [("a", tarfile.LNKTYPE, "b"), ("b", tarfile.LNKTYPE, "a"), (FIRST, tarfile.LNKTYPE, "a")],  # a circle
]


@pytest.mark.parametrize("chain", LINKS)
def test_no_chain_of_links_is_followed_before_or_after_the_files(tmp_path, chain):
    links = b"".join(member(name, kind=kind, link=to) for name, kind, to in chain)
    for content in (links + RELEASE, RELEASE + links):
        check(load(tmp_path / "data", content + END))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"V", b"Z"])
def test_devices_pipes_folders_and_unknown_kinds_are_passed_over(tmp_path, kind):
    for content in (member(FIRST, kind=kind) + RELEASE, RELEASE + member(FIRST, kind=kind)):
        check(load(tmp_path / "data", content + END))


def test_a_name_that_comes_twice_is_refused_and_neither_of_the_two_is_used(tmp_path):
    again = png(NOISE[7])
    for content in (member(FIRST, again), member(f"./{FIRST}", again), member("harmless", again, path=FIRST)):
        for whole in (content + RELEASE, RELEASE + content):
            refused = pytest.raises(MutualignError, match=r"holds (\./)?mnist_m/mnist_m_train/00000000\.png twice")
            with refused:
                load(tmp_path / "data", whole + END)


def test_a_file_with_holes_is_refused(tmp_path):
    """It takes a few bytes of the archive, and would be read as megabytes of zeros."""
    sparse = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1"}
    old = bytearray(member(FIRST, kind=tarfile.GNUTYPE_SPARSE))
    for content in (member(FIRST, **sparse), bytes(old)):
        with pytest.raises(MutualignError, match=r"mnist_m\.tar\.gz"):
            load(tmp_path / "data", content + END)


def test_a_header_that_announces_too_much_is_refused_before_it_is_read(tmp_path):
    def announcing(size: int, kind: bytes) -> bytes:
        info = tarfile.TarInfo(FIRST)
        info.type, info.size = kind, size
        return info.tobuf(tarfile.GNU_FORMAT)  # it has a way to write numbers of any size, negative ones too

    kinds = (tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
    for kind, size in itertools.product(kinds, (-1, -512, -(1 << 40), 1 << 31, 1 << 60)):
        with pytest.raises(MutualignError, match=f"a header announces {size} bytes"):
            load(tmp_path / "data", announcing(size, kind) + RELEASE + END)


@pytest.mark.timeout(20)
def test_a_size_in_an_extended_header_leads_to_the_release_or_to_an_error(tmp_path):
    for size in ("-1", "-512", "-9999999999999", "9" * 30, "1e9", "4", ""):
        with suppress(MutualignError):
            check(load(tmp_path / "data", member("harmless", b"evil", size=size) + RELEASE + END))


def test_extended_headers_cannot_make_it_slow(tmp_path):
    """A run of digits takes the patterns of tarfile (CVE-2024-6232) the square of its length: a megabyte, hours."""
    digits = tarfile.TarInfo("x")
    digits.type, digits.size = tarfile.XHDTYPE, 1 << 20
    content = digits.tobuf(tarfile.USTAR_FORMAT) + b"1" * digits.size
    start = time.monotonic()
    with pytest.raises(MutualignError, match="a header announces 1048576 bytes"):
        load(tmp_path / "data", content + RELEASE + END)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("levels", [2, 3])
def test_a_bomb_is_refused_by_its_ratio_in_little_memory(tmp_path, levels):
    bomb = gzip.compress(bytes(1 << 24), 9)  # a thousandth of it
    (tmp_path / "data").mkdir()
    archive = tmp_path / "data" / "mnist_m.tar.gz"
    archive.write_bytes(bomb * levels)  # gzip takes what follows as more of the same
    tracemalloc.start()
    try:
        refused = pytest.raises(
            MutualignError, match=r"unzips to more than 20 times its size|cannot be read to its end"
        )
        with refused:
            load_original(tmp_path / "data", TASK)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_behind_a_whole_release_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr(mnistm_original, "SMALL", 1 << 20)
    with pytest.raises(MutualignError, match="unzips to more than 20 times its size"):
        load(tmp_path / "data", RELEASE + END + bytes(2 << 20))


def test_the_ratio_of_a_release_is_far_from_that_of_a_bomb():
    pictures = b"".join(member(f"mnist_m/{i:08}.png", png(NOISE[i % 8])) for i in range(50))
    assert len(pictures) / len(gzip.compress(pictures, 9)) < mnistm_original.MAX_RATIO / 2
