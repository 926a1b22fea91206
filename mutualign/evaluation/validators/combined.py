"""The combined score, and its part that a slight change of the images must not destroy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mutualign.evaluation.validators.base import ValidatorInputs, entropy, register_validator
from mutualign.evaluation.validators.confidence import information_maximisation
from mutualign.evaluation.validators.source import source_accuracy


@register_validator("augmentation_consistency")
def augmentation_consistency(inputs: ValidatorInputs) -> float:
    """Share of target images that keep their predicted class when they are slightly changed.

    Source: Chen et al., "A study of unsupervised evaluation metrics for practical and automatic domain adaptation",
    arXiv 2308.00287, 2023.
    """
    return float((inputs.target_logits.argmax(1) == inputs.view_logits.argmax(1)).double().mean())


def kept_information(shares: Sequence[float], consistency: float) -> float:
    """Lower bound on the mutual information between predictions on images and on their changed views, in nats.

    H(shares) - h(e) - e ln(classes - 1), with `shares` of the predicted classes, e = 1 - `consistency`, and h the
    binary entropy (Fano's inequality). Low for predictions that change easily, and for predictions of one class only.
    """
    changed = 1 - consistency
    predicted, lasting = (torch.tensor(values, dtype=torch.float64) for values in (shares, (changed, consistency)))
    return float(entropy(predicted) - entropy(lasting)) - changed * math.log(max(len(shares) - 1, 1))


@register_validator("combined")
def combined(inputs: ValidatorInputs) -> float:
    """Confident predictions spread over the classes, stable under slight changes, by a model that keeps the source.

    (information maximisation + kept information) / ln(classes) + source accuracy; between about -1 and 3. Fano's
    bound stands in place of the consistency of the ACM score (information maximisation + consistency + source
    accuracy), which is perfect if all predictions are the same; ACM's classifier that is trained anew is left out.
    Source: adapted from Chen et al., arXiv 2308.00287, 2023 (ACM).
    """
    predicted, classes = inputs.target_logits.argmax(1), inputs.target_logits.shape[1]
    shares: list[float] = (torch.bincount(predicted, minlength=classes).double() / len(predicted)).tolist()
    information = information_maximisation(inputs) + kept_information(shares, augmentation_consistency(inputs))
    return information / math.log(max(classes, 2)) + source_accuracy(inputs)
