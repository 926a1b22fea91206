"""The systems that a demo compares, the real images it offers, and what the systems answer for an image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mutualign.data.datasets.mnist import DIGIT_NAMES
from mutualign.data.task import KEPT
from mutualign.data.types import ImageShape, spread
from mutualign.demo.images import with_channels
from mutualign.errors import MutualignError
from mutualign.runs.folder import RunFolder
from mutualign.runs.predictor import Predictor

BARS = 10  # most classes of a system whose probabilities are shown
SMALLEST = 8  # pixels of height and width: smaller images cannot be looked at


@dataclass(frozen=True)
class System:
    """A finished run, under the name that it has on the page."""

    name: str
    is_adapted: bool
    predictor: Predictor

    def probabilities(self, pixels: UInt8[Tensor, "n height width stored"]) -> Float[Tensor, "n classes"]:
        """Compute class probabilities of grey or coloured images."""
        return self.predictor.probabilities(with_channels(pixels, self.predictor.shape.channels))


class Verdict(NamedTuple):
    """What a system answers for an image, and how that compares with the expected answer, if there is one."""

    name: str
    is_adapted: bool
    answer: str
    probability: float
    bars: list[tuple[str, float]]  # the likeliest classes with their probabilities
    expected: str | None = None  # the true class, or the system's answer for the digit on black
    right: int = 0  # of the images of the same kind, how many get the expected answer
    of: int = 0

    @property
    def is_wrong(self) -> bool:
        """Whether the answer is not the expected one."""
        return self.expected is not None and self.answer != self.expected


@dataclass(frozen=True)
class Samples:
    """Real images of one domain, kept by the run; `labels` are class numbers if they are known."""

    domain: str
    pixels: UInt8[Tensor, "n height width stored"]
    labels: list[int] | None


@dataclass(frozen=True)
class Gallery:
    """Systems that take the same images, source-only runs first, and real images of the target and of the source."""

    systems: tuple[System, ...]
    samples: tuple[Samples, ...]

    @classmethod
    def load(cls, runs: Sequence[Path]) -> Gallery:
        """Load the systems of run folders. Raises MutualignError if they do not take the same images and classes."""
        if not runs:
            raise MutualignError("name one or more run folders, such as runs/digits/*/seed-0")
        predictors = [Predictor.load(run) for run in {run.resolve(): run for run in runs}.values()]
        _refuse_differences(predictors)
        names = _names(predictors)
        systems = [
            System(name, not one.run.config().recipe.is_source_only, one)
            for name, one in zip(names, predictors, strict=True)
        ]
        systems.sort(key=lambda system: system.is_adapted)
        return cls(tuple(systems), _samples(predictors[0].run))

    @property
    def shape(self) -> ImageShape:
        """What images the systems take."""
        return self.systems[0].predictor.shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the systems know."""
        return self.systems[0].predictor.class_names

    @property
    def is_of_digits(self) -> bool:
        """Whether the source is grey digits, and the target the same over photos: so the page can make its images."""
        return self.class_names == DIGIT_NAMES and [one.pixels.shape[3] for one in self.samples] == [3, 1]

    @cached_property
    def sample_probabilities(self) -> list[list[Float[Tensor, "n classes"]]]:
        """Class probabilities of the real images: by domain, then by system."""
        return [[system.probabilities(samples.pixels) for system in self.systems] for samples in self.samples]

    def opening(self, shown: int) -> tuple[int, int]:
        """Return the domain and number of the target image, among the first ones, that systems disagree on most."""
        first, last = (self.sample_probabilities[0][end][:shown] for end in (0, -1))
        return 0, furthest_apart(first, last)

    def look(self, pixels: UInt8[Tensor, "1 height width stored"]) -> list[Verdict]:
        """Return what each system answers for one image."""
        return [self.verdict(system, system.probabilities(pixels)[0]) for system in self.systems]

    def look_at_sample(self, group: int, number: int) -> list[Verdict]:
        """Return what each system answers for one real image, and how often it is right on those of its domain."""
        samples, verdicts = self.samples[group], []
        for system, found in zip(self.systems, self.sample_probabilities[group], strict=True):
            verdict = self.verdict(system, found[number])
            if samples.labels is not None:
                right = int((found.argmax(1) == torch.tensor(samples.labels)).sum())
                expected = self.class_names[samples.labels[number]]
                verdict = verdict._replace(expected=expected, right=right, of=len(found))
            verdicts.append(verdict)
        return verdicts

    def verdict(self, system: System, probabilities: Float[Tensor, " classes"], expected: str | None = None) -> Verdict:
        """Name a system's answer; of more than ten classes, the bars are the ten likeliest."""
        bars = list(zip(self.class_names, probabilities.tolist(), strict=True))
        answer, probability = max(bars, key=lambda bar: bar[1])
        if len(bars) > BARS or not self.is_of_digits:
            bars = sorted(bars, key=lambda bar: -bar[1])[:BARS]
        return Verdict(system.name, system.is_adapted, answer, probability, bars, expected)


def furthest_apart(first: Float[Tensor, "n classes"], last: Float[Tensor, "n classes"]) -> int:
    """Return the row where two tables of probabilities differ most."""
    return int((first - last).abs().sum(1).argmax())


def _names(predictors: Sequence[Predictor]) -> list[str]:
    """Name each run by its recipe; by recipe and seed, or by the end of its path, if that is not unique."""
    paths = [one.run.path.resolve() for one in predictors]
    above = Path(os.path.commonpath([path.parent for path in paths]))
    ways = (
        [one.result.recipe for one in predictors],
        [f"{one.result.recipe}, seed {one.result.seed}" for one in predictors],
        [str(path.relative_to(above)) for path in paths],
    )
    return [next(way[row] for way in ways if way.count(way[row]) == 1) for row in range(len(predictors))]


def _samples(folder: RunFolder) -> tuple[Samples, ...]:
    """Read the images that a run keeps of both domains, with their labels if it recorded them."""
    review = folder.checkpoints.load_review()
    target, source = review["target_samples"], review["source_samples"]
    recipe, target_labels = folder.config().recipe, None
    # Early versions spread photos, and samples of the source, over all test images, not over those with outputs.
    if "labels" in review and (not recipe.features or len(review["labels"]) < KEPT):
        target_labels = review["labels"][spread(len(review["labels"]), len(target))].tolist()
    stage, source_labels = len(recipe.stages) - 1, None
    if folder.checkpoints.has_outputs(stage, "selected"):
        labels = folder.checkpoints.load_outputs(stage, "selected")[0]["source_labels"]
        if len(labels) < KEPT:
            source_labels = labels[spread(len(labels), len(source))].tolist()
    return (Samples("target", target, target_labels), Samples("source", source, source_labels))


def _refuse_differences(predictors: Sequence[Predictor]) -> None:
    """Raise MutualignError that names the runs that differ, or a run that does not take pictures."""
    first = predictors[0]
    for other in predictors:
        properties = {
            "images": [f"{one.shape.height}x{one.shape.width} pixels" for one in (first, other)],
            "classes": [", ".join(one.class_names) for one in (first, other)],
        }
        for name, (one, another) in properties.items():
            if one != another:
                raise MutualignError(
                    f"the runs do not take the same {name}\n"
                    f"  {one}  in {first.run.path}\n"
                    f"  {another}  in {other.run.path}\n"
                    "  hint:    show each in a demo of its own"
                )
    if first.takes_vectors:
        raise MutualignError(
            f"{first.run.path} takes feature vectors, which cannot be looked at\n"
            "  hint:    classify a file of vectors with mutualign predict"
        )
    if min(first.shape.height, first.shape.width) < SMALLEST:
        raise MutualignError(
            f"{first.run.path} takes {first.shape.height}x{first.shape.width} pixels: too small to look at\n"
            "  hint:    the demo needs runs on images"
        )
    first.require_image_files("the demo")
    review = first.run.checkpoints.load_review()
    pixels = [review["source_samples"], review["target_samples"]]
    if not all(one.dtype == torch.uint8 and first.takes(one) for one in pixels):
        raise MutualignError(
            f"{first.run.path} was trained on numbers, on arrays in memory, or by an early version, so that its folder "
            "keeps no images to show\n  hint:    the demo needs runs on images"
        )
