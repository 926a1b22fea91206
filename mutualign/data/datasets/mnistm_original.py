"""MNIST-M, variant original: the 32x32 release of its authors, from its folder or straight from its archive."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from mutualign.data.cache import cached
from mutualign.data.fetch.data_files import DATA_VARIABLE, sha256_of
from mutualign.data.folders.image_io import decode_rgb
from mutualign.data.types import TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.io.tensors import digest

FOLDER, ARCHIVE = "mnist_m", "mnist_m.tar.gz"
SIZE = 32  # pixels, height and width
CLASSES = 10
COMPLETE = {"train": 59_001, "test": 9_001}  # images of the whole release

MAX_FILE = 1 << 20  # bytes of an image or a list of labels; the largest real one, the training labels, has 0.9 MB
MAX_FILES = 200_000  # files of the folder or members of the archive; the release has 68,004
MAX_BYTES = 1 << 30  # of all files, or of the archive unzipped; the release has about 0.2 GB
MAX_RATIO, SMALL = 20, 16 << 20  # unzipped bytes a zipped one, beyond the first 16 MiB; PNGs hardly shrink
MAX_EXTENDED = 4 << 10  # bytes of a long name or a member's extended header; tarfile's patterns take their square

_NAME = re.compile(r"mnist_m_(?:train|test)(?:_labels\.txt|/\d{8}\.png)", re.ASCII)
_LABEL_LINE = re.compile(r"(\d{8}\.png)\s+(-?\d{1,9})", re.ASCII)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Original:
    """The release as tensors. `identity` says how many images there are, and a SHA-256 of pixels and labels."""

    train: TargetDataset
    test: TargetDataset
    identity: str


def load_original(folder: Path, task: str) -> Original:
    """The release in a data folder: the folder `mnist_m`, else the archive `mnist_m.tar.gz`, which is never unpacked.

    Raises MutualignError where neither is there, or where a file of it is missing, malformed or not of its size.
    """
    if (place := folder / FOLDER).is_dir():
        names, key = _examine_folder(place)
        tensors = cached(f"mnistm-original-v1-{key}", lambda: _decode(_read_folder(place, names), place))
    elif (place := folder / ARCHIVE).is_file():
        tensors = cached(f"mnistm-original-v1-{sha256_of(place)}", lambda: _decode(_read_archive(place), place))
    else:
        raise MutualignError(_missing_message(folder, task))
    counts = {split: len(tensors[split]) for split in COMPLETE}
    complete = "the complete release" if counts == COMPLETE else "NOT the complete release of 59001 / 9001"
    train, test = (TargetDataset(UnlabelledImages(tensors[split]), tensors[f"{split} labels"]) for split in COMPLETE)
    return Original(
        train,
        test,
        f"{counts['train']} train / {counts['test']} test images ({complete}), "
        f"SHA-256 of the decoded images and labels {digest(tensors)[:16]}",
    )


def _examine_folder(place: Path) -> tuple[list[str], str]:
    """Names, below the folder, of the release's files, and a key made of their names, sizes and times of change."""
    digest, names, total = hashlib.sha256(), [], 0
    try:
        for split in COMPLETE:
            images = place / f"mnist_m_{split}"
            files = sorted(images.iterdir()) if images.is_dir() else []
            for file in [place / f"{images.name}_labels.txt", *files]:
                name = file.relative_to(place).as_posix()
                if _NAME.fullmatch(name) and file.is_file():
                    status = file.stat()
                    digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
                    total += status.st_size
                    names.append(name)
    except OSError as error:
        raise MutualignError(f"{place}: cannot be read: {error}") from error
    if len(names) > MAX_FILES or total > MAX_BYTES:
        raise MutualignError(f"{place}: {len(names)} files with {total} bytes: too many for the release of MNIST-M")
    return names, digest.hexdigest()


def _read_folder(place: Path, names: list[str]) -> dict[str, bytes]:
    contents = {}
    for name in names:
        try:
            with (place / name).open("rb") as file:
                contents[name] = _checked(file.read(MAX_FILE + 1), place / name)
        except OSError as error:
            raise MutualignError(f"{place / name}: cannot be read: {error}") from error
    return contents


class _Unzipped(gzip.GzipFile):
    """A gzip stream that ends with an error after MAX_BYTES, or MAX_RATIO: a small file can unzip to any size."""

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if self.tell() > MAX_BYTES:
            raise MutualignError(f"{self.name}: unzips to more than {MAX_BYTES >> 20} MiB; not the release of MNIST-M")
        if self.tell() > max(SMALL, MAX_RATIO * os.stat(self.name).st_size):  # noqa: PTH116 - its name is text
            raise MutualignError(f"{self.name}: unzips to more than {MAX_RATIO} times its size; not the release")
        return content


class _Member(tarfile.TarInfo):
    """A header of the archive, refused where it announces more than such a header has, before any of it is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        most = MAX_BYTES if member.type in _FILES else MAX_EXTENDED
        if not 0 <= member.size <= most:
            raise tarfile.ReadError(f"a header announces {member.size} bytes")
        return member


def _read_archive(place: Path) -> dict[str, bytes]:
    """The release's files in an archive, by name below `mnist_m/`, read into memory as a stream; none is unpacked.

    Only regular files with exactly the release's names count; links, devices and all other names are passed over. A
    name that comes twice is an error, as is a file with holes, which holds less than it announces.
    """
    contents = {}
    try:
        with _Unzipped(place) as unzipped, tarfile.open(fileobj=unzipped, mode="r|", tarinfo=_Member) as archive:
            for count, member in enumerate(archive, 1):
                if count > MAX_FILES:
                    raise MutualignError(f"{place}: more than {MAX_FILES} members; not the release of MNIST-M")
                if not 0 <= member.size <= MAX_BYTES:  # as an extended header says; to pass over it would take for ever
                    raise MutualignError(f"{place}: a member of {member.size:,} bytes; not the release of MNIST-M")
                path = member.name.removeprefix("./")
                name = path.removeprefix(f"{FOLDER}/")
                if name == path or member.type not in _FILES or not _NAME.fullmatch(name):
                    continue
                if name in contents:
                    raise MutualignError(f"{place}: holds {path} twice; not the release of MNIST-M")
                if member.issparse():
                    raise MutualignError(f"{place}, {path}: a file with holes; not the release of MNIST-M")
                if file := archive.extractfile(member):  # a view of the stream, in spite of its name
                    contents[name] = _checked(file.read(MAX_FILE + 1), f"{place}, {path}")
            while unzipped.read(1 << 20):  # up to the checksum at the end, which covers all that was read
                pass
    except _DAMAGE as error:
        raise MutualignError(f"{place}: cannot be read to its end: {error}") from error
    return contents


def _checked(content: bytes, where: object) -> bytes:
    if len(content) > MAX_FILE:
        raise MutualignError(f"{where}: larger than {MAX_FILE} bytes; not a file of the release of MNIST-M")
    return content


def _decode(contents: Mapping[str, bytes], place: Path) -> dict[str, Tensor]:
    """The tensors `train`, `train labels`, `test` and `test labels`, in the order of the lists of labels."""
    tensors = {}

    def decode(names: Sequence[str]) -> UInt8[Tensor, "n size size 3"]:
        return torch.stack([decode_rgb(contents[name], f"{place}, {name}", "PNG", (SIZE, SIZE)) for name in names])

    with ThreadPoolExecutor() as pool:
        for split in COMPLETE:
            labels = _labels(contents, split, place)
            names = [f"mnist_m_{split}/{name}" for name in labels]
            if missing := [name for name in names if name not in contents]:
                raise MutualignError(
                    f"{place}: {len(missing)} of the {len(names)} images in mnist_m_{split}_labels.txt are missing\n"
                    f"  missing  {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}\n"
                    "  do       get the release anew: it was not copied, downloaded or unpacked to its end"
                )
            chunks = [names[i : i + 500] for i in range(0, len(names), 500)]  # one image a call costs twice the time
            tensors[split] = torch.cat(list(pool.map(decode, chunks)))
            tensors[f"{split} labels"] = torch.tensor(list(labels.values()))
    return tensors


def _labels(contents: Mapping[str, bytes], split: str, place: Path) -> dict[str, int]:
    """The classes of a split's images, by name of the image: lines like `00000000.png 5`."""
    name = f"mnist_m_{split}_labels.txt"
    where = f"{place}, {name}"
    if name not in contents:
        raise MutualignError(
            f"{where}: no such file\n  do       it lies beside the folder of the images, mnist_m_{split}"
        )
    labels: dict[str, int] = {}
    for number, line in enumerate(contents[name].decode("ascii", "replace").splitlines(), 1):
        if not line.strip():
            continue
        match = _LABEL_LINE.fullmatch(line.strip())
        if match is None:
            raise MutualignError(f"{where}, line {number}: {line[:80]!r}, expected a line like '00000000.png 5'")
        if not 0 <= int(match[2]) < CLASSES:
            raise MutualignError(f"{where}, line {number}: class {match[2]}, expected 0 to {CLASSES - 1}")
        if match[1] in labels:
            raise MutualignError(f"{where}, line {number}: {match[1]} is listed twice")
        labels[match[1]] = int(match[2])
    if not labels:
        raise MutualignError(f"{where}: lists no images")
    return labels


def _missing_message(folder: Path, task: str) -> str:
    return "\n".join(
        [
            f"no file for the task {task}: the original release of MNIST-M (32x32, 59,001 + 9,001 images)",
            f"  missing  {ARCHIVE}, or the folder {FOLDER}/ with mnist_m_train/, mnist_m_train_labels.txt,",
            "           mnist_m_test/ and mnist_m_test_labels.txt",
            f"  looked in {folder} ({DATA_VARIABLE} is {'set' if os.environ.get(DATA_VARIABLE) else 'unset'})",
            "  do       put one of them there; it cannot be downloaded from here: no lasting mirror is known. Or give",
            "           another folder with --data, or take a variant that is made from files with mirrors:",
            "           `--task mnist-mnistm`, `--task mnist-mnistm-resampled`; `--task digits` needs no files at all",
        ]
    )
