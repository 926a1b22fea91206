"""`predict`: the command that labels new images with a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from mutualign.cli.options import AcceleratorOption, EpochOption, ForceOption, RunArgument
from mutualign.errors import MutualignError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from mutualign.data.folders.listing import Listing
    from mutualign.runs.predictor import Predictor


@dataclass(frozen=True)
class Predict:
    """Label new images with a finished run: class, probability and entropy of each.

    Examples: mutualign predict runs/digits/best/seed-0 photos/ --out predictions.csv
              mutualign predict runs/digits/best/seed-0 one.png
    """

    run: RunArgument
    images: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES")]
    """An image, a folder of images (flat or nested), or a .csv or .parquet table with the column path; for a run on
    feature vectors, a .npz, .npy or .parquet file of them."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the predictions go: a .csv, .json or .parquet file. Needed for more than one image. The entropy, in nats,
    is high where the classifier is unsure."""
    force: ForceOption = False
    epoch: EpochOption = "selected"
    accelerator: AcceleratorOption = "auto"

    def main(self, console: Console) -> None:
        """Predict, and write or print the predictions."""
        from mutualign.cli.predictions import check_predictions, write_predictions
        from mutualign.data.folders.image_io import SUFFIXES
        from mutualign.data.folders.vectors import holds_vectors, read_vectors
        from mutualign.runs.predictor import Predictor
        from mutualign.training.hardware import keep_freed_memory

        inputs = [self.images] if self.images.is_file() else []
        if self.out is not None:
            check_predictions(self.out, inputs, self.force)
        vectors = read_vectors(self.images, labelled=False) if holds_vectors(self.images) else None
        listing = self._listing() if vectors is None else None
        paths = listing.paths if listing else ()
        keep_freed_memory()
        predictor = Predictor.load(self.run, self.epoch, self.accelerator)
        predictor.require_kind(self.images, None if vectors is None else vectors.x.shape[1])
        bad: list[str] = []
        given = _decoded(paths, predictor, bad) if vectors is None else vectors.rows()
        found = list(predictor.predict(given))
        if not found:
            shown = "\n".join(f"  bad      {fault}" for fault in bad[:10])
            raise MutualignError(
                f"{self.images}: none of {len(paths):,} image(s) can be read\n{shown}\n"
                f"  hint:    repair them, or give others ({', '.join(sorted(SUFFIXES))})"
            )
        if self.out is None and len(found) > 1:
            raise MutualignError(f"{self.images}: {len(found):,} rows\n  hint:    add --out predictions.csv")
        if self.out is None:
            (one,) = found
            console.print(f"{one.path}  {one.label}  probability {one.probability:.4f}  entropy {one.entropy:.4f}")
            return
        write_predictions(self.out, found, inputs, self.force)
        left_out = f"; {len(bad):,} of {len(paths):,} cannot be read and are left out" if bad else ""
        console.print(
            f"{self.out}: {len(found):,} {'image' if vectors is None else 'vector'}{'s'[: len(found) > 1]}{left_out}"
        )
        for fault in bad:
            console.print(f"left out: {fault}", style="yellow")
        if listing and len(listing.skipped):
            console.print(f"skipped: {listing.skipped}")

    def _listing(self) -> Listing:
        """List all images. Raises MutualignError if there are none, or several but no `--out`."""
        from mutualign.data.folders.image_io import SUFFIXES
        from mutualign.data.folders.listing import Listing, list_unlabelled
        from mutualign.data.folders.tables import TABLES

        suffix = self.images.suffix.lower()
        if not self.images.exists():
            raise MutualignError(
                f"{self.images}: no such image, folder or table\n"
                f"  hint:    check the path; relative ones start from {Path.cwd()}"
            )
        if self.images.is_file():
            if suffix in SUFFIXES:
                return Listing(self.images, (self.images,), None)
            if suffix not in TABLES:
                raise MutualignError(
                    f"{self.images}: neither an image nor a table by its name\n"
                    f"  hint:    give an image ({', '.join(sorted(SUFFIXES))}), a folder of images, or a table "
                    f"({', '.join(TABLES)})"
                )
        if self.out is None:
            raise MutualignError(f"{self.images}: more than one image\n  hint:    add --out predictions.csv")
        return list_unlabelled(self.images)


def _decoded(paths: tuple[Path, ...], predictor: Predictor, bad: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield each readable image with its path; the faults of the others are added to `bad`."""
    from mutualign.data.folders.image_io import decode_image, decoding_bytes, read_image_file
    from mutualign.data.folders.parallel import in_parallel

    def decode(path: Path) -> Tensor | str:
        try:
            return decode_image(read_image_file(path), path, predictor.shape)
        except MutualignError as error:
            return str(error)

    for path, pixels in zip(paths, in_parallel(decode, paths, "predicting", decoding_bytes), strict=True):
        if isinstance(pixels, str):
            bad.append(pixels)
        else:
            yield str(path), pixels
