"""`export`: the command that writes a run's classifier as one file for use elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console


@dataclass(frozen=True)
class Export:
    """Write a run's classifier as one file for use elsewhere: pixels in, class probabilities out.

    Before the file gets its name it is tried on 1, 7 and 64 real images: the same class each, and probabilities within
    1e-4 of the run's, or the export fails and leaves nothing. Class names and a model card are in the file.

    Example: mutualign export runs/digits/fast/seed-0
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A complete run folder."""
    format: Literal["onnx", "torch-export", "safetensors"] = "onnx"
    """onnx: a graph for onnxruntime and others; needs the extra `export`. torch-export: a program for torch alone. Both
    take any number of images, as stored. safetensors: the weights only, the same bit for bit, for use with mutualign.
    The lines of Python that use the file are printed."""
    out: Path | None = None
    """The file; one that is there is replaced. Default: in the run folder, model.onnx, model.pt2 or
    model.safetensors."""
    epoch: Literal["selected", "last"] = "selected"
    """The epoch that was selected without labels, or the last one."""

    def main(self, console: Console) -> None:
        from mutualign.export.exporter import TRIED, export_run

        with console.status("exporting"):
            done = export_run(self.run, self.format, self.out, self.epoch)
        kind, height, width, channels = done.pixels
        repeated = f" ({done.images} different ones, some of them again)" if done.images < max(TRIED) else ""
        lines = (
            f"{done.path} ({done.size / 1e6:.2f} MB{', replaced' if done.replaced else ''})",
            f"tried on {', '.join(map(str, TRIED))} real images{repeated}: the same classes; "
            f"largest difference of a probability {done.difference:.1e}",
            "",
            f"pixels: {kind} [n, {height}, {width}, {channels}], grey repeated to {channels} channels"
            if channels > 1
            else f"pixels: {kind} [n, {height}, {width}, 1]",
            "",
            done.usage,
        )
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True, markup=False)
