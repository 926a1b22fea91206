"""The systems that a demo shows side by side, the images it begins with, and what the systems say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mutualign.data.types import ImageShape
from mutualign.demo.images import normalised, over, photo_patches, with_channels
from mutualign.errors import MutualignError
from mutualign.recipes import parse_recipe
from mutualign.runs.experiment import adapts
from mutualign.runs.predictor import Predictor

DIGITS = tuple("0123456789")
BARS = 10  # classes of a system whose probabilities are shown
SMALLEST = 8  # pixels of height and width: what is smaller is no picture


@dataclass(frozen=True)
class System:
    """A finished run, under the name that it has on the page."""

    name: str
    adapted: bool
    predictor: Predictor

    def probabilities(self, pixels: UInt8[Tensor, "n height width stored"]) -> Float[Tensor, "n classes"]:
        """Class probabilities of grey or coloured images."""
        return self.predictor.probabilities(with_channels(pixels, self.predictor.shape.channels))


class Verdict(NamedTuple):
    """What a system says of an image."""

    name: str
    adapted: bool
    answer: str
    probability: float
    bars: list[tuple[str, float]]
    kept: int | None = None  # patches over which it says of the digit what it says of it on black
    on_black: str | None = None  # what it says of the digit there


class Square(NamedTuple):
    """The digit over one patch, and each system's answer there: the class, and whether it is that on black."""

    pixels: UInt8[Tensor, "height width 3"]
    answers: list[tuple[str, bool]]


@dataclass(frozen=True)
class Gallery:
    """Systems that take the same images, source only first, and the images that a page offers."""

    systems: tuple[System, ...]
    source: UInt8[Tensor, "sources height width _"]
    target: UInt8[Tensor, "targets height width _"]

    @classmethod
    def load(cls, runs: Sequence[Path]) -> Gallery:
        """The systems of run folders. Raises MutualignError if they do not take the same images and classes."""
        if not runs:
            raise MutualignError("name one or more run folders, such as runs/digits/*/seed-0")
        predictors = [Predictor.load(run) for run in runs]
        _refuse_differences(predictors)
        recipes = [parse_recipe(one.run.config()["recipe"], f"{one.run.path}/config.toml") for one in predictors]
        shared = Counter(recipe.name for recipe in recipes)
        systems = [
            System(
                recipe.name if shared[recipe.name] == 1 else f"{recipe.name}, seed {one.about['seed']}",
                adapts(recipe),
                one,
            )
            for recipe, one in zip(recipes, predictors, strict=True)
        ]
        systems.sort(key=lambda system: system.output_model)
        review = predictors[0].run.load_tensors("review")[0]
        return cls(tuple(systems), review["source_samples"], review["target_samples"])

    @property
    def shape(self) -> ImageShape:
        return self.systems[0].predictor.shape

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.systems[0].predictor.class_names

    @property
    def of_digits(self) -> bool:
        """Whether drawing a digit makes sense."""
        return self.class_names == DIGITS

    @cached_property
    def patches(self) -> UInt8[Tensor, "n height width 3"]:
        return photo_patches(self.shape.height, self.shape.width)

    @cached_property
    def examples(self) -> UInt8[Tensor, "n height width 1"]:
        """Up to ten digits, each of which the systems together take for another class.

        The first of each class among the run's own grey images and, after them, the digits that scikit-learn ships.
        """
        grey = [samples for samples in (self.source, self.target) if samples.shape[-1] == 1]
        digits = torch.cat([*grey[:1], _shipped_digits(self.shape)])
        said = torch.stack([system.probabilities(digits) for system in self.systems]).mean(0).argmax(1)
        return digits[[int((said == number).nonzero()[0]) for number in sorted(set(said.tolist()))]]

    def opening(self) -> tuple[int, int]:
        """The example and the patch to begin with: those at which adapting shows most.

        That is the example of which the last system keeps its answer over more patches than the first does, by the
        widest margin, and of its patches that over which their probabilities are furthest apart.
        """
        margins, apart = [], []
        for digit in self.examples:
            placed = torch.cat([digit.expand(-1, -1, 3)[None], over(digit, self.patches, 1.0)])
            first, last = (self.systems[end].probabilities(placed) for end in (0, -1))
            kept = [int((found[1:].argmax(1) == found[0].argmax()).sum()) for found in (first, last)]
            margins.append(kept[1] - kept[0])
            apart.append(self.furthest_apart(placed[1:]))
        example = margins.index(max(margins))
        return example, apart[example]

    def furthest_apart(self, images: UInt8[Tensor, "n height width stored"]) -> int:
        """The image at which the probabilities of the first and the last system differ most."""
        first, last = (self.systems[end].probabilities(images) for end in (0, -1))
        return int((first - last).abs().sum(1).argmax())

    def look(self, pixels: UInt8[Tensor, "1 height width stored"]) -> list[Verdict]:
        """What each system says of one image."""
        return [self._verdict(system, system.probabilities(pixels)[0]) for system in self.systems]

    def place(
        self, digit: UInt8[Tensor, "height width 1"], patch: int, photo: float
    ) -> tuple[list[Verdict], list[Square]]:
        """What each system says of a digit over one patch, and over all."""
        placed = over(digit, self.patches, photo)
        images = torch.cat([digit.expand(-1, -1, 3)[None], placed])
        verdicts, answers = [], []
        for system in self.systems:
            plain, *found = system.probabilities(images)
            kept = [bool(each.argmax() == plain.argmax()) for each in found]
            on_black = self.class_names[plain.argmax()]
            verdicts.append(self._verdict(system, found[patch])._replace(kept=sum(kept), on_black=on_black))
            answers.append([(self.class_names[each.argmax()], same) for each, same in zip(found, kept, strict=True)])
        return verdicts, [
            Square(pixels, list(said)) for pixels, said in zip(placed, zip(*answers, strict=True), strict=True)
        ]

    def _verdict(self, system: System, probabilities: Float[Tensor, " classes"]) -> Verdict:
        bars = list(zip(self.class_names, probabilities.tolist(), strict=True))
        answer, probability = max(bars, key=lambda bar: bar[1])
        if len(bars) > BARS:
            bars = sorted(bars, key=lambda bar: -bar[1])[:BARS]
        return Verdict(system.name, system.output_model, answer, probability, bars)


def _refuse_differences(predictors: Sequence[Predictor]) -> None:
    """Raise MutualignError that says which runs differ, or that a run does not take pictures."""
    first = predictors[0]
    for other in predictors:
        what = {
            "images": [f"{one.shape.height}x{one.shape.width} pixels" for one in (first, other)],
            "classes": [", ".join(one.class_names) for one in (first, other)],
        }
        for name, (one, another) in what.items():
            if one != another:
                raise MutualignError(
                    f"the runs do not take the same {name}\n"
                    f"  {one}  in {first.run.path}\n"
                    f"  {another}  in {other.run.path}\n"
                    "  do       show them in a demo each"
                )
    if min(first.shape.height, first.shape.width) < SMALLEST:
        raise MutualignError(
            f"{first.run.path} takes {first.shape.height}x{first.shape.width} pixels: no pictures to show\n"
            "  do       give runs on images to the demo"
        )


def _shipped_digits(shape: ImageShape) -> UInt8[Tensor, "n height width 1"]:
    from sklearn.datasets import load_digits

    images = torch.tensor(load_digits().images[:100] / 16 * 255).round().to(torch.uint8)
    framed = torch.nn.functional.pad(images, (2, 2, 2, 2))
    return torch.stack([normalised(image, shape.height, shape.width) for image in framed])
