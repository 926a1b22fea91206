"""`predict`: the command that labels new images with a finished run."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from torch import Tensor

from mutualign.data.folders.image_cache import in_parallel
from mutualign.data.folders.image_io import SUFFIXES, decode_image, read_image_file
from mutualign.data.folders.listing import TABLES, list_unlabelled
from mutualign.errors import MutualignError
from mutualign.io.atomic import write_atomically
from mutualign.runs.predictor import Prediction, Predictor
from mutualign.training.hardware import keep_freed_memory

FORMATS = (".csv", ".json", ".parquet")


@dataclass(frozen=True)
class Predict:
    """Label new images with a finished run.

    Examples: mutualign predict runs/digits/best/seed-0 photos/ --out predictions.csv
              mutualign predict runs/digits/best/seed-0 one.png
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A complete run folder."""
    images: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES")]
    """An image, a folder of images (flat or nested), or a .csv or .parquet table with the column path."""
    out: Path | None = None
    """Where the predictions go: .csv, .json or .parquet, with path, label, probability and entropy (in nats). Needed
    for more than one image. An existing file is replaced when all is done."""
    epoch: Literal["selected", "last"] = "selected"
    """The classifier of the epoch chosen without labels, or of the last one."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """What to compute on."""

    def main(self, console: Console) -> None:
        if self.out is not None and self.out.suffix.lower() not in FORMATS:
            raise MutualignError(f"--out {self.out}: its name must end in one of {', '.join(FORMATS)}")
        paths = self._paths()
        if self.out is not None:
            _make_room(self.out)
        keep_freed_memory()
        predictor = Predictor.load(self.run, self.epoch, self.accelerator)
        bad: list[str] = []
        found = list(predictor.predict(_decoded(paths, predictor, bad)))
        if not found:
            shown = "\n".join(f"  bad      {fault}" for fault in bad[:10])
            raise MutualignError(
                f"{self.images}: none of {len(paths):,} image(s) can be read\n{shown}\n"
                f"  do       mend them, or give others ({', '.join(sorted(SUFFIXES))})"
            )
        if self.out is None:
            (one,) = found
            told = f"{one.path}  {one.label}  probability {one.probability:.4f}  entropy {one.entropy:.4f}"
            console.print(told, highlight=False, markup=False, soft_wrap=True)
            return
        _write(self.out, found)
        left_out = f"; {len(bad):,} of {len(paths):,} cannot be read and are left out" if bad else ""
        told = f"{self.out}: {len(found):,} image{'s'[: len(found) > 1]}{left_out}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)
        for fault in bad:
            console.print(f"left out: {fault}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def _paths(self) -> tuple[Path, ...]:
        """Of every image. Raises MutualignError if there are none, or several without a place for the answers."""
        if not self.images.exists():
            raise MutualignError(
                f"{self.images}: no such image, folder or table\n"
                f"  do       check the path; relative ones begin at {Path.cwd()}"
            )
        if self.images.suffix.lower() in SUFFIXES and self.images.is_file():
            return (self.images,)
        if self.images.is_file() and self.images.suffix.lower() not in TABLES:
            raise MutualignError(
                f"{self.images}: neither an image nor a table by its name\n"
                f"  do       give an image ({', '.join(sorted(SUFFIXES))}), a folder of images, or a table "
                f"({', '.join(TABLES)})"
            )
        if self.out is None:
            raise MutualignError(f"{self.images}: more than one image\n  do       say where to: --out predictions.csv")
        return list_unlabelled(self.images).paths


def _decoded(paths: tuple[Path, ...], predictor: Predictor, bad: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Each readable image with its path; the faults of the others are added to `bad`."""

    def look(path: Path) -> Tensor | str:
        try:
            return decode_image(read_image_file(path), path, predictor.shape)
        except MutualignError as error:
            return str(error)

    for path, pixels in zip(paths, in_parallel(look, paths, "predicting"), strict=True):
        if isinstance(pixels, str):
            bad.append(pixels)
        else:
            yield str(path), pixels


def _make_room(out: Path) -> None:
    """Raise MutualignError now, not after the last image, if the predictions cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise _unwritable(out, f"{out.parent} is a file") from error
    except OSError as error:
        raise _unwritable(out, str(error.strerror)) from error
    if out.is_dir():
        raise _unwritable(out, "it is a folder")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise _unwritable(out, f"no permission to write into {out.parent}")
    if out.suffix.lower() == ".parquet":
        _pyarrow()


def _unwritable(out: Path, why: str) -> MutualignError:
    return MutualignError(f"{out}: cannot be written: {why}\n  do       choose another place with --out")


def _write(out: Path, found: list[Prediction]) -> None:
    """The predictions as a file that is there whole or not at all."""
    if out.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Prediction._fields)
        writer.writerows((path, label, f"{p:.6f}", f"{entropy:.6f}") for path, label, p, entropy in found)
        content = text.getvalue().encode()
    elif out.suffix.lower() == ".json":
        content = (json.dumps([one._asdict() for one in found], indent=1) + "\n").encode()
    else:
        content = _parquet(found)
    write_atomically(out, content)


def _parquet(found: list[Prediction]) -> bytes:
    buffer = io.BytesIO()
    pyarrow = _pyarrow()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([one._asdict() for one in found]), buffer)
    return buffer.getvalue()


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MutualignError("Parquet needs pyarrow\n  do       pip install 'mutualign[parquet]'") from error
    return pyarrow
