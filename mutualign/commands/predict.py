"""`predict`: the command that labels new images with a finished run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from torch import Tensor

from mutualign.data.decoded import in_parallel
from mutualign.data.decoding import SUFFIXES, decode_image, read_image_file
from mutualign.data.folders import list_unlabelled
from mutualign.errors import MutualignError
from mutualign.prediction import Prediction, Predictor
from mutualign.training.runs import write_atomically

FORMATS = (".csv", ".json", ".parquet")


@dataclass(frozen=True)
class Predict:
    """Label new images with a finished run.

    Examples: mutualign predict runs/digits/best/seed-0 photos/ --out predictions.csv
              mutualign predict runs/digits/best/seed-0 one.png
    """

    run: tyro.conf.Positional[Path]
    """A complete run folder."""
    images: tyro.conf.Positional[Path]
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
        single = self.images.suffix.lower() in SUFFIXES and not self.images.is_dir()
        if self.out is None and not single:
            raise MutualignError(f"{self.images}: more than one image\n  do       say where to: --out predictions.csv")
        predictor = Predictor.load(self.run, self.epoch, self.accelerator)
        paths = (self.images,) if single else list_unlabelled(self.images).paths
        bad: list[str] = []
        found = list(predictor.predict(_decoded(paths, predictor, bad)))
        if self.out is None or not found:
            if bad:
                raise MutualignError(f"no image could be read\n  such as  {bad[0]}")
            (one,) = found
            told = f"{one.path}  {one.label}  probability {one.probability:.4f}  entropy {one.entropy:.4f}"
            console.print(told, highlight=False, markup=False, soft_wrap=True)
            return
        _write(self.out, found)
        console.print(f"{self.out}: {len(found):,} images", highlight=False, markup=False, soft_wrap=True)
        for fault in bad:
            console.print(f"left out: {fault}", style="yellow", highlight=False, markup=False, soft_wrap=True)


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
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, content)
    except OSError as error:
        raise MutualignError(f"{out}: cannot be written: {error.strerror}; choose another --out") from error


def _parquet(found: list[Prediction]) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MutualignError("Parquet needs pyarrow\n  do       pip install 'mutualign[parquet]'") from error
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist([one._asdict() for one in found]), buffer)
    return buffer.getvalue()
