"""The published files that tasks need: MNIST, USPS and BSDS500, with their hashes and mirrors; imports no torch."""

from __future__ import annotations

from importlib.resources import files

from mutualign.data.fetch.data_files import DataFile

_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

_MNIST_SHA256 = {  # of the gzipped file, and of its content
    "train-images-idx3-ubyte": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


def _mnist_file(name: str) -> DataFile:
    zipped, plain = _MNIST_SHA256[name]
    folders = ("MNIST/raw", "mnist", ".")  # the first is torchvision's
    return DataFile(
        accepted={f"{folder}/{name}.gz": zipped for folder in folders}
        | {f"{folder}/{name}": plain for folder in folders},
        mirrors=tuple(f"{mirror}{name}.gz" for mirror in _MNIST_MIRRORS),
    )


MNIST_FILES = tuple(map(_mnist_file, _MNIST_SHA256))

_USPS_MIRRORS = (
    "https://hastie.su.domains/ElemStatLearn/datasets/",
    "https://web.stanford.edu/~hastie/ElemStatLearn/datasets/",
)

_USPS_SHA256 = {
    "zip.train.gz": "66ebf231ab51f2cf6ac1a892d0f98ccffee1079d7a5db638c1f11f366046ca16",
    "zip.test.gz": "8dacc3c6e136af6c3488de9e5113a7daf140c8c2f1f0b61c54ee02f03f1a962f",
}

USPS_FILES = tuple(
    DataFile(
        accepted={f"{folder}{name}": sha256 for folder in ("usps/", "USPS/", "")},
        mirrors=tuple(f"{mirror}{name}" for mirror in _USPS_MIRRORS),
    )
    for name, sha256 in _USPS_SHA256.items()
)

_BSDS500_MIRROR = "https://raw.githubusercontent.com/BIDS/BSDS500/a04b7c6c3a9f0ace74bf205c72a43d32e1c72722/"
_LAYOUTS = ("BSDS500/data/images", "BSR/BSDS500/data/images")  # of the repository, of the official archive


def _bsds500() -> dict[str, tuple[DataFile, ...]]:
    """The photos by split, from the list of hashes next to this file."""
    lines = (files("mutualign.data.datasets") / "bsds500.sha256").read_text(encoding="utf-8").splitlines()
    splits: dict[str, tuple[DataFile, ...]] = {"train": (), "val": (), "test": ()}
    for sha256, name in map(str.split, lines):
        places = {f"{layout}/{name}": sha256 for layout in _LAYOUTS}
        file = DataFile(accepted=places, mirrors=(f"{_BSDS500_MIRROR}{_LAYOUTS[0]}/{name}",))
        splits[name.split("/")[0]] += (file,)
    return splits


BSDS500_FILES = _bsds500()


def photo_files(*splits: str) -> tuple[DataFile, ...]:
    """Return the files of some splits: train (200), val (100), test (200)."""
    return tuple(file for split in splits for file in BSDS500_FILES[split])


FROZEN_FILES = (*MNIST_FILES, *photo_files("train", "test"))  # of MNIST-M, by variant
RESAMPLED_FILES = (*MNIST_FILES, *photo_files("train", "val", "test"))
