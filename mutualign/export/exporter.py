"""Export: a run's classifier as one file for use elsewhere, which gets its name once real images have passed it."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mutualign.data.types import Pixels, spread
from mutualign.errors import MutualignError, nearest
from mutualign.export.formats import FORMATS, Deployed, Format
from mutualign.export.model_card import Epoch, facts, model_card
from mutualign.io.atomic import write_atomically
from mutualign.runs.predictor import Predictor

NAME = "model"  # and the format's suffix, in the run folder
TRIED = (1, 7, 64)  # numbers of images that a file must answer at once


class Export(NamedTuple):
    """A file that was written, and how it compares with the run's classifier."""

    path: Path
    size: int  # bytes
    difference: float  # the largest one of a probability
    images: int  # different real images that it was tried on
    replaced: bool  # a file that was there before
    pixels: tuple[str, int, int, int]  # type, height, width, channels of an image
    usage: str  # Python that uses the file


def export_run(run: Path, kind: str = "onnx", out: Path | None = None, epoch: Epoch = "selected") -> Export:
    """Write the classifier of a run's last stage as `onnx`, `torch-export` or `safetensors`, in float32.

    To `out`, or into the run folder as model.onnx, model.pt2 or model.safetensors; a file of that name is replaced. The
    file is read back and tried on 1, 7 and 64 of the run's own images first: each must get the same class as from the
    run's classifier in float32, and probabilities within 1e-4 (for safetensors, the very same ones). Raises
    MutualignError, and leaves what was there as it was, if it does not, if the format is unknown or needs an extra, if
    `out` ends in another suffix, or if the place cannot be written.
    """
    if kind not in FORMATS:
        raise MutualignError(f'unknown format "{kind}"; {nearest(kind, FORMATS)}')
    form = FORMATS[kind]
    out = out or run / (NAME + form.suffix)
    if out.suffix != form.suffix:
        raise MutualignError(f"--out {out}: the name of a file of the format {kind} ends in {form.suffix}")
    predictor = Predictor.load(run, epoch, accelerator="cpu", precision="float32")
    images, different = real_images(predictor)
    pixels = (str(images.dtype).removeprefix("torch."), *images.shape[1:])
    told = facts(predictor, epoch, pixels[0])
    notes = {
        "class_names": json.dumps(told["class_names"]),
        "image_shape": json.dumps(told["image_shape"]),
        "backbone": told["backbone"],
        "facts": json.dumps(told),
        "model_card": model_card(told),
    }
    content = _encoded(form, Deployed(predictor.classifier, predictor.shape, images.dtype), notes, kind)
    replaced = out.is_file()
    beside = out.with_name(f"{out.name}.unchecked")
    try:
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            try:
                write_atomically(beside, content)
            except MutualignError as error:  # names the file beside, which nobody asked for
                raise MutualignError(str(error).replace(str(beside), str(out))) from error
            difference = check(beside.read_bytes(), form, predictor, images)
            beside.replace(out)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise MutualignError(
            f"{out}: cannot be written: {error.strerror}\n  do       choose another place with --out"
        ) from error
    return Export(out, len(content), difference, different, replaced, pixels, form.usage.format(path=str(out)))


def _encoded(form: Format, network: Deployed, notes: dict[str, str], kind: str) -> bytes:
    try:
        return form.encode(network, notes)
    except RuntimeError as error:  # torch's exporters raise nothing narrower
        others = ", ".join(name for name in FORMATS if name != kind)
        raise MutualignError(
            f"the backbone {notes['backbone']} cannot be exported as {kind}: {error}\n  do       try --format {others}"
        ) from error


def real_images(predictor: Predictor) -> tuple[Pixels, int]:
    """As many of the run's own images as the largest trial takes, of both domains, and how many different ones.

    Grey ones are repeated to the run's channels; where the run kept fewer, they come again.
    """
    review, _ = predictor.run.load_tensors("review")
    kept = [review[f"{domain}_samples"].expand(-1, -1, -1, predictor.shape.channels) for domain in ("source", "target")]
    images = torch.cat(kept)
    return images[torch.arange(max(TRIED)) % len(images)], min(len(images), max(TRIED))


def check(content: bytes, form: Format, predictor: Predictor, images: Pixels) -> float:
    """The largest difference of a probability between an exported file and the run's classifier.

    Raises MutualignError, which says what differs and where, if the file cannot be used, or does not answer alike.
    """
    try:
        opened = form.decode(content)
        largest = 0.0
        for n in TRIED:
            rows = spread(len(images), n)
            with torch.no_grad():
                found = opened.answer(images[rows])
            largest = max(largest, _compare(found, predictor.probabilities(images[rows]), rows, form, predictor))
    except MutualignError:
        raise
    except Exception as error:  # each format's library has errors of its own; whichever it is, the file is of no use
        raise MutualignError(f"the exported file cannot be used: {type(error).__name__}: {error}\n{_ADVICE}") from error
    if opened.class_names != predictor.class_names:
        raise _unlike(f"its classes are {opened.class_names}, those of the run {predictor.class_names}")
    return largest


def _compare(
    found: Float[Tensor, "n classes"],
    expected: Float[Tensor, "n classes"],
    rows: Tensor,
    form: Format,
    predictor: Predictor,
) -> float:
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        raise _unlike(f"it gives {found.dtype} of shape {tuple(found.shape)}, not {tuple(expected.shape)} of float32")
    differences = (found - expected).abs()
    differences = torch.where(differences.isfinite(), differences, torch.inf)  # comparisons with NaN are all false
    wrong = (differences > form.tolerance).any(1) | (found.argmax(1) != expected.argmax(1))
    if wrong.any():
        place = int(wrong.int().argmax())
        column = int(differences[place].argmax())
        raise _unlike(
            f"{int(wrong.sum())} of {len(rows)} images differ, the first is image {int(rows[place])}\n"
            f"  file     {predictor.class_names[found[place].argmax()]}, "
            f'with a probability of {found[place, column]:.6f} for "{predictor.class_names[column]}"\n'
            f"  run      {predictor.class_names[expected[place].argmax()]}, "
            f"with {expected[place, column]:.6f} for the same; {form.tolerance:g} would be let pass"
        )
    return float(differences.max())


_ADVICE = (
    "  left     nothing was written\n"
    "  do       try another --format, or other versions of torch, onnx and onnxruntime, and tell us of it"
)


def _unlike(what: str) -> MutualignError:
    return MutualignError(f"the exported file does not answer as the run does: {what}\n{_ADVICE}")
