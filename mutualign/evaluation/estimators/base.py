"""What an estimator sees and returns, and the registry of estimators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class EstimatorInputs:
    """Outputs of a classifier for held-out source images and for target images. There are no target labels."""

    source_logits: Float[Tensor, "source classes"]
    source_labels: Int64[Tensor, " source"]
    target_logits: Float[Tensor, "target classes"]

    @property
    def predicted(self) -> Int64[Tensor, " target"]:
        """Predicted classes of the target images."""
        return self.target_logits.argmax(1)

    @property
    def source_accuracy(self) -> float:
        """Share of the source images that are classified correctly."""
        return float((self.source_logits.argmax(1) == self.source_labels).double().mean())


@dataclass(frozen=True)
class RunOutputs(EstimatorInputs):
    """Outputs of one of several runs on the same data, with the run's recipe and seed, and its label-free score."""

    recipe: str
    seed: int
    score: float  # by the default validator; higher is better
    consistency: float | None = None  # share of target images that keep their class when they are slightly changed


class Estimate(NamedTuple):
    """An estimated accuracy between 0 and 1, and a range for it; see each estimator for what the range covers."""

    accuracy: float
    low: float
    high: float


Estimator = Callable[[RunOutputs, Sequence[RunOutputs]], Estimate | None]
AnyEstimator = TypeVar("AnyEstimator", bound=Estimator)
ESTIMATORS: dict[str, Estimator] = {}  # the most trusted first


def register_estimator(name: str) -> Callable[[AnyEstimator], AnyEstimator]:
    """Decorator: make an estimator available by name.

    It gets a run and all runs on the same data, that run included, and returns None if these are not enough.
    """

    def register(estimator: AnyEstimator) -> AnyEstimator:
        ESTIMATORS[name] = estimator
        return estimator

    return register


def within(accuracy: float, half_width: float) -> Estimate:
    """Return an estimate whose range is cut off at 0 and 1."""
    return Estimate(accuracy, max(accuracy - half_width, 0.0), min(accuracy + half_width, 1.0))


def sampled(outputs: EstimatorInputs, accuracy: float) -> Estimate:
    """Return an estimate whose range covers the sampling of the images of both domains, roughly, and nothing else."""
    images = len(outputs.target_logits), len(outputs.source_logits)
    return within(accuracy, math.hypot(*(sampling_error(accuracy, n) for n in images)))


def sampling_error(accuracy: float, images: int) -> float:
    """Half the width of the 95 % interval of a share counted on a number of images (Agresti and Coull, 1998)."""
    adjusted = (accuracy * images + 2) / (images + 4)
    return 1.96 * math.sqrt(adjusted * (1 - adjusted) / (images + 4))
