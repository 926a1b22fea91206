"""The Transfer Score: clusters of target features, predictions, and the angles between the classes of the head."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.evaluation.validators.base import ValidatorInputs, register_validator
from mutualign.evaluation.validators.confidence import information_maximisation
from mutualign.nn.randomness import generator

DRAWN = 200  # points of Hopkins' statistic


@register_validator("transfer_score")
def transfer_score(inputs: ValidatorInputs) -> float:
    """Clustered target features, confident and balanced predictions, and equal angles between the head's classes.

    Hopkins' statistic + information maximisation / ln(classes) - deviation of the angles. A head whose last layer is
    not linear has no such angles, and nothing is subtracted. Source: Yang et al., "Can we evaluate domain adaptation
    models without target-domain labels?", ICLR 2024, section 3. The authors' code measures the information by batch,
    and Hopkins' statistic with a random 5 % of the images; this takes all images for both.
    """
    classes, weights = inputs.target_logits.shape[1], inputs.class_weights
    information = information_maximisation(inputs) / math.log(max(classes, 2))
    uneven = 0.0 if weights is None else angle_deviation(weights)
    return hopkins_statistic(inputs.target_features) + information - uneven


def hopkins_statistic(features: Float[Tensor, "n features"]) -> float:
    """Tell clusters from an even spread: u / (u + w), 0.5 for an even spread, 1 for a few points.

    w is the mean distance of images to the nearest other image, u that of 200 points, drawn evenly from the smallest
    box that holds all images, to the nearest image. 0.5 where all distances are 0, and for a single image.
    """
    x = features.float()
    low, high = x.amin(0), x.amax(0)
    drawn = low + (high - low) * torch.rand(DRAWN, x.shape[1], generator=generator("hopkins"))
    u = torch.cdist(drawn, x).amin(1).mean()
    w = torch.cdist(x, x).fill_diagonal_(torch.inf).amin(1).mean()
    return float(u / (u + w)) if len(x) > 1 and u + w > 0 else 0.5


def angle_deviation(weights: Float[Tensor, "classes inputs"]) -> float:
    """Mean squared deviation, in radians, of the angles between classes from the largest that all pairs can have.

    That angle is arccos(-1 / (classes - 1)). 0 for a single class.
    """
    classes = len(weights)
    if classes < 2:
        return 0.0
    directions = F.normalize(weights.double(), dim=1)
    pairs = torch.triu_indices(classes, classes, offset=1)
    angles = (directions @ directions.T)[pairs[0], pairs[1]].clamp(-1, 1).acos()
    return float((angles - math.acos(-1 / (classes - 1))).square().mean())
