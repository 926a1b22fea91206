"""MNIST -> MNIST-M, variant original: the 32x32 release of its authors, from its folder or its archive."""

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
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from mutualign.data.cache import cached
from mutualign.data.datasets.mnist import DIGIT_NAMES, load_mnist
from mutualign.data.fetch.data_files import DATA_VARIABLE
from mutualign.data.folders.image_io import decode_rgb
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.io.hashing import sha256_of
from mutualign.io.tensors import digest

NAME = "mnist-mnistm-original"
FOLDER, ARCHIVE = "mnist_m", "mnist_m.tar.gz"
SIZE = 32  # pixels, height and width
CLASSES = 10
COMPLETE = {"train": 59_001, "test": 9_001}  # images of the whole release

MAX_FILE = 1 << 20  # bytes of an image or a list of labels; the largest real one, the training labels, has 0.9 MB
MAX_FILES = 200_000  # files of the folder or members of the archive; the release has 68,004
MAX_BYTES = 1 << 30  # of all files, or of the archive unzipped; the release has about 0.2 GB
MAX_RATIO, SMALL = 20, 16 << 20  # unzipped bytes per zipped byte, beyond the first 16 MiB; PNGs hardly shrink
MAX_EXTENDED = 4 << 10  # bytes of a long name or an extended header; tarfile's patterns take quadratic time

_NAME = re.compile(r"mnist_m_(?:train|test)(?:_labels\.txt|/\d{8}\.png)", re.ASCII)
_LABEL_LINE = re.compile(r"(\d{8}\.png)\s+(-?\d{1,9})", re.ASCII)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)


def load_task(folder: Path) -> Task:
    """MNIST with a black border, and the release of MNIST-M."""
    target = load_original(folder, NAME)  # first, because it cannot be downloaded
    train, test = (pad(digits, SIZE) for digits in load_mnist(folder, NAME))
    return Task(
        NAME,
        # Editing these words breaks resume for existing runs.
        f"MNIST 28x28 zero-padded to {SIZE}x{SIZE}, 60000 train / 10000 test; target MNIST-M, variant original: the "
        f"release of {SIZE}x{SIZE} images, not resized, {target.identity}",
        DIGIT_NAMES,
        train,
        test,
        target.train,
        target.test,
    )


def pad(digits: LabelledImages, size: int) -> LabelledImages:
    """Centre square images in larger black ones; an odd border is one pixel wider below and on the right."""
    border = size - digits.images.pixels.shape[1]
    sides = (border // 2, border - border // 2)
    return LabelledImages(UnlabelledImages(F.pad(digits.images.pixels, (0, 0, *sides, *sides))), digits.labels)


@dataclass(frozen=True)
class Original:
    """The release as tensors; `identity` has the numbers of images and a SHA-256 of pixels and labels."""

    train: TargetDataset
    test: TargetDataset
    identity: str


def load_original(folder: Path, task: str) -> Original:
    """Load the release from a data folder: from `mnist_m`, else from `mnist_m.tar.gz`, which is never unpacked.

    Raises MutualignError if both are missing, or if a file in it is missing, malformed or of the wrong size.
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
    """Return the names of the release's files in the folder, and a key of their names, sizes and times of change."""
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
    """A gzip stream that raises after MAX_BYTES or above MAX_RATIO: a small file can unzip to any size."""

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if self.tell() > MAX_BYTES:
            raise MutualignError(f"{self.name}: unzips to more than {MAX_BYTES >> 20} MiB; not the release of MNIST-M")
        if self.tell() > max(SMALL, MAX_RATIO * os.stat(self.name).st_size):  # noqa: PTH116 - its name is text
            raise MutualignError(f"{self.name}: unzips to more than {MAX_RATIO} times its size; not the release")
        return content


class _Member(tarfile.TarInfo):
    """A header of the archive; refused if it announces more bytes than such a member can have."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        most = MAX_BYTES if member.type in _FILES else MAX_EXTENDED
        if not 0 <= member.size <= most:
            raise tarfile.ReadError(f"a header announces {member.size} bytes")
        return member


def _read_archive(place: Path) -> dict[str, bytes]:
    """Read the release's files from an archive into memory, by name in `mnist_m/`; nothing is unpacked.

    Only regular files with exactly the release's names count; links, devices and other names are ignored. Raises
    MutualignError for a repeated name, and for a sparse file, which holds less than it announces.
    """
    contents = {}
    try:
        with _Unzipped(place) as unzipped, tarfile.open(fileobj=unzipped, mode="r|", tarinfo=_Member) as archive:
            for count, member in enumerate(archive, 1):
                if count > MAX_FILES:
                    raise MutualignError(f"{place}: more than {MAX_FILES} members; not the release of MNIST-M")
                if not 0 <= member.size <= MAX_BYTES:  # from an extended header; skipping it would never end
                    raise MutualignError(f"{place}: a member of {member.size:,} bytes; not the release of MNIST-M")
                path = member.name.removeprefix("./")
                name = path.removeprefix(f"{FOLDER}/")
                if name == path or member.type not in _FILES or not _NAME.fullmatch(name):
                    continue
                if name in contents:
                    raise MutualignError(f"{place}: holds {path} twice; not the release of MNIST-M")
                if member.issparse():
                    raise MutualignError(f"{place}, {path}: a sparse file; not the release of MNIST-M")
                if file := archive.extractfile(member):  # despite its name, a view of the stream
                    contents[name] = _checked(file.read(MAX_FILE + 1), f"{place}, {path}")
            while unzipped.read(1 << 20):  # to the checksum at the end
                pass
    except _DAMAGE as error:
        raise MutualignError(f"{place}: cannot be read to its end: {error}") from error
    return contents


def _checked(content: bytes, where: object) -> bytes:
    if len(content) > MAX_FILE:
        raise MutualignError(f"{where}: larger than {MAX_FILE} bytes; not a file of the release of MNIST-M")
    return content


def _decode(contents: Mapping[str, bytes], place: Path) -> dict[str, Tensor]:
    """Decode to the tensors `train`, `train labels`, `test` and `test labels`, in the order of the label lists."""
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
                    "  hint:    get the release again: copying, downloading or unpacking it was interrupted"
                )
            chunks = [names[i : i + 500] for i in range(0, len(names), 500)]  # one image per call takes twice the time
            tensors[split] = torch.cat(list(pool.map(decode, chunks)))
            tensors[f"{split} labels"] = torch.tensor(list(labels.values()))
    return tensors


def _labels(contents: Mapping[str, bytes], split: str, place: Path) -> dict[str, int]:
    """Parse the labels of a split by image name, from lines like `00000000.png 5`."""
    name = f"mnist_m_{split}_labels.txt"
    where = f"{place}, {name}"
    if name not in contents:
        raise MutualignError(
            f"{where}: no such file\n  hint:    it belongs next to the folder of images, mnist_m_{split}"
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
            "  hint:    put one of them there; it cannot be downloaded, because no lasting mirror is known. Or give",
            "           another folder with --data, or use a variant made from files with mirrors:",
            "           `--task mnist-mnistm` or `--task mnist-mnistm-resampled`; `--task digits` needs no files",
        ]
    )
