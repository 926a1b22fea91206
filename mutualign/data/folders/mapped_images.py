"""Images in a file that is mapped into memory; a file that changes while it is used is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mutualign.data.types import ImageShape, Pixels, UnlabelledImages
from mutualign.errors import MutualignError

WHOLE = 4 << 30  # bytes up to which images are copied to an accelerator at once


class FileState(NamedTuple):
    """What changes when a file is written to."""

    device: int
    inode: int
    size: int
    modified: int  # nanoseconds

    @classmethod
    def of(cls, path: Path) -> FileState:
        status = path.stat()
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class MappedImages(UnlabelledImages):
    """Images in a mapped file: a batch is read when it is needed, so they may be larger than memory."""

    path: Path
    state: FileState  # of the file when it was mapped
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def open(cls, path: Path, n: int, shape: ImageShape) -> MappedImages:
        """Map a file of `n` images of a shape, one byte per value."""
        channels, height, width = shape
        rows, state = map_rows(path, n, height * width * channels)
        return cls(rows.view(n, height, width, channels), path, state)

    def take(self, indices: Int64[Tensor, " batch"], key: int) -> Pixels:
        """Return the images at `indices`. Raises MutualignError if the file was written to since it was mapped."""
        self._check()
        return self.pixels[indices.cpu()].to(self.device)

    def subset(self, rows: Int64[Tensor, " rows"]) -> UnlabelledImages:
        """Copy the images at `rows` into memory."""
        self._check()
        return UnlabelledImages(self.pixels[rows]).to(self.device)

    def to(self, device: torch.device) -> UnlabelledImages:
        """Move to an accelerator: all images at once if they are less than 4 GiB, else batch by batch."""
        self._check()
        if device.type != "cpu" and self.pixels.nbytes < WHOLE:
            return UnlabelledImages(self.pixels.to(device))
        return replace(self, device=device)

    def _check(self) -> None:
        """Raise MutualignError if the mapped file was written to; reading a truncated one would kill the process.

        A file that was removed or replaced is no harm: the mapping keeps the old content.
        """
        try:
            now = FileState.of(self.path)
        except OSError:
            return
        if now[:2] == self.state[:2] and now != self.state:
            raise _changed(self.path)


@dataclass(frozen=True)
class SelectedImages(UnlabelledImages):
    """Some rows of other images, without a copy: `pixels` are those of all, `rows` says which count."""

    rows: Int64[Tensor, " rows"]
    images: UnlabelledImages

    @classmethod
    def of(cls, images: UnlabelledImages, rows: Sequence[int]) -> SelectedImages:
        """Select rows of images."""
        return cls(images.pixels, torch.tensor(rows, dtype=torch.int64), images)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Int64[Tensor, " batch"], key: int) -> Pixels:
        """Return the selected images at `indices`."""
        return self.images.take(self.rows[indices.cpu()], key)

    def subset(self, rows: Int64[Tensor, " rows"]) -> UnlabelledImages:
        """Select some of the selected rows."""
        return replace(self, rows=self.rows[rows])

    def to(self, device: torch.device) -> UnlabelledImages:
        """Move to an accelerator: the selected rows are copied to it at once."""
        return self if device.type == "cpu" else self.images.subset(self.rows).to(device)


def map_rows(path: Path, n: int, row_bytes: int) -> tuple[UInt8[Tensor, "n bytes"], FileState]:
    """Map a file of `n` rows of bytes. Raises MutualignError if it has another size."""
    state = FileState.of(path)
    if state.size != n * row_bytes:
        raise _changed(path)
    return torch.from_file(str(path), shared=False, size=state.size, dtype=torch.uint8).view(n, row_bytes), state


def _changed(path: Path) -> MutualignError:
    return MutualignError(
        f"{path}: the cache of decoded images was changed while it was in use\n"
        "  hint:    start or resume the command again; damaged images are decoded again"
    )
