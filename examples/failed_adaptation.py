"""An adaptation that fails in silence, and which evidence shows it.

Three classes of points; the target is the source turned by an angle. Up to 60 degrees each cloud of
the target is closest to its own class, and adaptation repairs what the turn broke. Beyond, each is
closest to its neighbour's class: adaptation makes every answer wrong and sure. Printed for each
angle: the accuracy of source only and of the adapted classifier, the mean confidence of the latter,
the lower bound of its accuracy from a critic, the interval from 30 labels, and the alarms of the
adapted classifier. Beyond 60 degrees the bound is wrong: it assumes that the true classes differ
from the predicted ones no more than a critic can, and here they are simply exchanged. No alarm is
raised either. Thirty labels settle it.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from mutualign import DomainAdapter
from mutualign.estimator import AlarmWarning
from mutualign.evaluation.discrepancy import bound_accuracy
from mutualign.evaluation.estimators.base import EstimatorInputs
from mutualign.evaluation.few_labels import labelled_accuracy

Points = tuple[NDArray[np.float32], NDArray[np.int64]]


def points(degrees: float, seed: int) -> Points:
    """Three clouds around the corners of a turned triangle: [600, 2] and their classes."""
    generator = np.random.default_rng(seed)
    classes = np.repeat(np.arange(3), 200)
    angles = np.radians(degrees + 120 * classes)
    centres = 1.6 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (centres + generator.normal(scale=0.3, size=centres.shape)).astype(np.float32), classes


def adapted(recipe: str, source: Points, target: NDArray[np.float32], seed: int) -> DomainAdapter:
    """Train a recipe on labelled source and unlabelled target points."""
    short = ["stages.0.epochs=6", "stages.0.epoch_steps=50"]
    return DomainAdapter(recipe, overrides=short, random_state=seed).fit(*source, target)


def logits(adapter: DomainAdapter, rows: NDArray[np.float32]) -> torch.Tensor:
    """The logarithms of the probabilities, which serve as logits."""
    return torch.from_numpy(adapter.predict_proba(rows)).clamp(min=1e-12).log()


def main() -> None:
    """Adapt to turned targets; print accuracy and evidence."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--degrees", type=float, nargs="+", default=[30, 55, 75])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    seed = arguments.seed
    warnings.simplefilter("ignore", AlarmWarning)  # the table has them
    source, held_out = points(0, seed), points(0, seed + 1)
    print("turned by   source only   adapted   confidence   bound   30 labels     alarms")
    for degrees in arguments.degrees:
        target, classes = points(degrees, seed + 2)
        before, after = (adapted(recipe, source, target, seed) for recipe in ("source_only", "mcc"))
        found = after.predict(target)
        evidence = EstimatorInputs(
            logits(after, held_out[0]), torch.from_numpy(held_out[1]), logits(after, target)
        )
        few = np.random.default_rng(seed).choice(len(target), 30, replace=False)
        known = labelled_accuracy(torch.from_numpy(found[few]), torch.from_numpy(classes[few]))
        alarms = ", ".join(alarm.name for alarm in after.alarms_)
        print(
            f"{degrees:9.0f}   {before.score(target, classes):11.0%}   "
            f"{after.score(target, classes):7.0%}   "
            f"{after.predict_proba(target).max(1).mean():10.0%}   "
            f"{bound_accuracy(evidence):5.0%}   "
            f"{f'{known.low:.0%} to {known.high:.0%}':<11}   {alarms}".rstrip()
        )


if __name__ == "__main__":
    main()
