"""Target images with what each system of a comparison answers for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mutualign.data.types import spread
from mutualign.report.comparison_data import ComparedRun
from mutualign.report.output_sections import showable
from mutualign.report.page import Block, Gallery
from mutualign.report.run_data import FinishedRun

SHOWN = 16  # images
SYSTEMS = 4  # whose answers fit below an image


def sample_gallery(name: str, systems: Mapping[str, Sequence[ComparedRun]]) -> list[Block]:
    """Show evenly spaced target images with the answers of the first systems; nothing if their runs kept no images."""
    read = {system: FinishedRun.read(runs[0].run.folder) for system, runs in list(systems.items())[:SYSTEMS]}
    read = {system: run for system, run in read.items() if run.outputs}
    if not read:
        return []
    first = next(iter(read.values()))
    pixels, names = first.review.get("target_samples"), first.class_names
    if pixels is None or not showable(pixels):
        return []
    rows = spread(len(first.outputs["target_logits"]), len(pixels))
    chosen = spread(len(pixels), SHOWN)
    labels = first.review.get("labels")
    lines = []
    for row in rows[chosen].tolist():
        true = None if labels is None else int(labels[row])
        answers = {system: int(run.outputs["target_logits"][row].argmax()) for system, run in read.items()}
        marks = {system: "" if true is None else " ✓" if answer == true else " ✗" for system, answer in answers.items()}
        said = [f"{system}: {names[answer]}{marks[system]}" for system, answer in answers.items()]
        lines.append("\n".join([*([] if true is None else [f"true class: {names[true]}"]), *said]))
    caption = "Evenly spaced test images of the target. Below each: what the systems answer, one run of each."
    if len(systems) > len(read):
        caption = f"{caption} The first {len(read)} of {len(systems)} systems."
    return [Gallery(name, "Target images", caption, pixels[chosen].numpy(), lines)]
