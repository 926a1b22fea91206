"""Export: a run's classifier as one file, written only after it agrees with the run on real images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mutualign.data.types import ImageShape, Pixels, spread
from mutualign.errors import MutualignError, nearest
from mutualign.export.formats import FORMATS, Format
from mutualign.export.model_card import ModelFacts, model_card
from mutualign.export.network import ExportedNetwork
from mutualign.io.output import check_output, write_output
from mutualign.io.typed import encode_json
from mutualign.runs.checkpoints import Which
from mutualign.runs.predictor import Predictor

NAME = "model"  # of the file in the run folder, before the format's suffix
BATCHES = (1, 7, 64)  # numbers of images that every file is checked on

PHOTO_USAGE = """\
import numpy
from PIL import Image, ImageOps
photo = Image.open("photo.jpg")
photo.draft(None, (2 * {width}, 2 * {height}))  # reduces a large JPEG
photo = ImageOps.exif_transpose(photo)
if photo.mode.startswith("I"):  # 16 bits
    photo = Image.fromarray((numpy.array(photo) / 257).round().astype("uint8"))
photo = photo.convert("RGBA")
photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("{mode}")
photo = ImageOps.fit(photo, ({width}, {height}), Image.Resampling.BICUBIC)
pixels = numpy.array(photo).reshape(1, {height}, {width}, {channels})
"""

_ADVICE = (
    "  note     nothing was written\n"
    "  hint:    try another --format, or other versions of torch, onnx and onnxruntime, and report it as a bug"
)


class ExportedFile(NamedTuple):
    """A written file, and how it compares with the run's classifier."""

    path: Path
    size: int  # bytes
    difference: float  # the largest one of a probability
    images: int  # different real images that it was checked on
    replaced: bool  # whether an older file was replaced
    pixels: tuple[str, int, int, int]  # type, height, width, channels of an image
    usage: str  # Python that uses the file


def export_run(
    run: Path, format_name: str = "onnx", out: Path | None = None, epoch: Which = "selected", *, force: bool = False
) -> ExportedFile:
    """Write the classifier of a run's last stage in one of `FORMATS`, in float32.

    The file goes to `out`, or into the run folder as `model` with the format's suffix. Before it is written, its
    probabilities must agree with those of the run's classifier in float32 on 1, 7 and 64 of the run's own images, to
    the format's tolerance.

    Raises MutualignError, and writes nothing, if the file disagrees, the format is unknown or needs an extra, `out`
    has another suffix or cannot be written, or exists already and `force` is off.
    """
    if format_name not in FORMATS:
        raise MutualignError(f'unknown format "{format_name}"; {nearest(format_name, FORMATS)}')
    form = FORMATS[format_name]
    out = out or run / f"{NAME}{form.suffix}"
    if out.suffix != form.suffix:
        raise MutualignError(f"--out {out}: the name of a file in the format {format_name} must end in {form.suffix}")
    predictor = Predictor.load(run, epoch, accelerator="cpu", precision="float32")
    check_output(out, force=force)  # after the run is opened, so that a path without a run is named first
    images, different = real_images(predictor)
    pixels = (str(images.dtype).removeprefix("torch."), *images.shape[1:])
    facts = ModelFacts.of(predictor, epoch, pixels[0])
    frozen = predictor.run.config().recipe.pretrained
    content = _encode(form, ExportedNetwork(predictor.classifier, predictor.shape, images.dtype, frozen), facts)
    difference = check(content, form, predictor, images)
    replaced = out.is_file()
    write_output(out, content, force=force)
    usage = form.usage.format(path=str(out))
    if facts.of_files:
        usage = photo_usage(predictor.shape) + usage
    return ExportedFile(out, len(content), difference, different, replaced, pixels, usage)


def photo_usage(shape: ImageShape) -> str:
    """Return the Python that reads a file as `decode_image` does."""
    return PHOTO_USAGE.format(**shape._asdict(), mode="L" if shape.channels == 1 else "RGB")


def _encode(form: Format, network: ExportedNetwork, facts: ModelFacts) -> bytes:
    metadata = {
        "class_names": encode_json(facts.class_names),
        "image_shape": encode_json(facts.image_shape),
        "backbone": facts.backbone,
        **({"frozen_network": encode_json(facts.frozen)} if facts.frozen else {}),
        "facts": encode_json(facts),
        "model_card": model_card(facts),
    }
    try:
        return form.encode(network, metadata)
    except RuntimeError as error:  # torch's exporters raise nothing narrower
        others = ", ".join(name for name in FORMATS if name != form.name)
        raise MutualignError(
            f"the backbone {facts.backbone} cannot be exported as {form.name}: {error}\n"
            f"  hint:    try --format {others}"
        ) from error


def real_images(predictor: Predictor) -> tuple[Pixels, int]:
    """Return as many of the run's own images as the largest batch of the check needs, and how many of them differ.

    They are of both domains. Grey ones are repeated to the run's channels; images repeat if the run kept fewer.
    Raises MutualignError if the run kept features and no photos.
    """
    review = predictor.run.checkpoints.load_review()
    kept = [review["source_samples"], review["target_samples"]]
    if not all(predictor.takes(pixels) for pixels in kept):
        if predictor.run.config().is_of_arrays:
            raise MutualignError(
                f"{predictor.run.path} was trained on features of photos in memory, and keeps no photos for the check\n"
                "  hint:    write the DomainAdapter to a file with its method save"
            )
        raise MutualignError(
            f"{predictor.run.path} was made by an early version, which kept no photos for the check\n"
            "  hint:    train the run again in another folder"
        )
    images = torch.cat([pixels.expand(-1, -1, -1, predictor.shape.channels) for pixels in kept])
    return images[torch.arange(max(BATCHES)) % len(images)], min(len(images), max(BATCHES))


def check(content: bytes, form: Format, predictor: Predictor, images: Pixels) -> float:
    """Return the largest difference of a probability between an exported file and the run's classifier.

    Raises MutualignError that says what differs and where if the file cannot be used or disagrees with the run.
    """
    try:
        opened = form.decode(content)
        largest = 0.0
        for n in BATCHES:
            rows = spread(len(images), n)
            with torch.no_grad():
                found = opened.probabilities(images[rows])
            largest = max(largest, _compare(found, predictor.probabilities(images[rows]), rows, form, predictor))
    except MutualignError:
        raise
    except Exception as error:  # each format's library has its own errors; any of them means that the file is useless
        raise MutualignError(f"the exported file cannot be used: {type(error).__name__}: {error}\n{_ADVICE}") from error
    if opened.class_names != predictor.class_names:
        raise _disagrees(f"its classes are {opened.class_names}, those of the run {predictor.class_names}")
    return largest


def _compare(found: Tensor, expected: Tensor, rows: Tensor, form: Format, predictor: Predictor) -> float:
    """Return the largest difference of two tables of probabilities, of which `found` may have any shape and type."""
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        raise _disagrees(f"it returns {found.dtype} of shape {tuple(found.shape)}, not {tuple(expected.shape)} float32")
    differences = (found - expected).abs()
    differences = torch.where(differences.isfinite(), differences, torch.inf)  # comparisons with NaN are all false
    wrong = (differences > form.tolerance).any(1)  # within the tolerance, another class is a tie
    if wrong.any():
        place = int(wrong.int().argmax())
        column = int(differences[place].argmax())
        names = predictor.class_names
        raise _disagrees(
            f"{int(wrong.sum())} of {len(rows)} images differ, the first is image {int(rows[place])}\n"
            f"  file     {names[int(found[place].argmax())]}, "
            f'with a probability of {found[place, column]:.6f} for "{names[column]}"\n'
            f"  run      {names[int(expected[place].argmax())]}, "
            f"with {expected[place, column]:.6f} for the same; accepted: {form.tolerance:g}"
        )
    return float(differences.max())


def _disagrees(what: str) -> MutualignError:
    return MutualignError(f"the exported file does not agree with the run: {what}\n{_ADVICE}")
