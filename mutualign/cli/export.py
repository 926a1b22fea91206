"""`export`: the command that writes a run's classifier as one file for use elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mutualign.cli.options import EpochOption, ForceOption
from mutualign.export.formats import formats_help

FormatOption = Annotated[str, tyro.conf.arg(metavar="NAME", help=formats_help())]


@dataclass(frozen=True)
class Export:
    """Write a run's classifier as one file for use elsewhere: pixels in, class probabilities out.

    The file holds the class names and a model card and, for a run on photos, the frozen pretrained network too (a
    safetensors file only names its weights). Before it is written, it is checked on 1, 7 and 64 real images: its
    probabilities must be within 1e-4 of the run's.

    Example: mutualign export runs/digits/fast/seed-0
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A complete run folder."""
    format: FormatOption = "onnx"
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file. Default: `model` with the format's suffix, in the run folder."""
    epoch: EpochOption = "selected"
    force: ForceOption = False

    def main(self, console: Console) -> None:
        from mutualign.export.exporter import BATCHES, export_run

        with console.status("exporting"):
            done = export_run(self.run, self.format, self.out, self.epoch, force=self.force)
        kind, height, width, channels = done.pixels
        few = f" ({done.images} different ones, some repeated)" if done.images < max(BATCHES) else ""
        vectors = (height, width) == (1, 1)
        grey = f", grey repeated to {channels} channels" if channels > 1 and not vectors else ""
        checked = f"{', '.join(map(str, BATCHES))} real {'vectors' if vectors else 'images'}{few}"
        lines = (
            f"{done.path} ({done.size / 1e6:.2f} MB{', replaced' if done.replaced else ''})",
            f"checked on {checked}: largest difference of a probability {done.difference:.1e}",
            "",
            f"pixels: {kind} [n, {height}, {width}, {channels}]{grey}" + (", one vector per row" if vectors else ""),
            "",
            done.usage,
        )
        console.print("\n".join(lines))
