"""Validators of confidence: how sure a model is of its target predictions, and how it spreads them over the classes."""

from __future__ import annotations

import torch

from mutualign.evaluation.validators.base import ValidatorInputs, entropy, probabilities, register_validator

TAYLOR_BELOW = 5.0  # nats of cross-entropy with uniform labels, up to which MaNo takes logits to be badly calibrated


@register_validator("target_entropy")
def target_entropy(inputs: ValidatorInputs) -> float:
    """Negative mean entropy of target predictions; highest for a collapse to one class.

    -E H(p), in nats, between -ln(classes) and 0. Confident predictions score high whether they are right or wrong.
    Source: Morerio et al., "Minimal-entropy correlation alignment for unsupervised deep domain adaptation", ICLR 2018.
    """
    return -float(entropy(probabilities(inputs.target_logits)).mean())


@register_validator("information_maximisation")
def information_maximisation(inputs: ValidatorInputs) -> float:
    """Confident target predictions that are spread over the classes.

    H(E p) - E H(p), in nats, between 0 and ln(classes). Source: Shi and Sha, "Information-theoretical learning of
    discriminative clusters for unsupervised domain adaptation", ICML 2012.
    """
    p = probabilities(inputs.target_logits)
    return float(entropy(p.mean(0)) - entropy(p).mean())


@register_validator("nuclear_norm")
def nuclear_norm(inputs: ValidatorInputs) -> float:
    """Nuclear norm of the matrix of target probabilities, per image (BNM).

    The sum of the singular values of the n x classes matrix, divided by n. Source: Cui et al., "Towards
    discriminability and diversity: batch nuclear-norm maximization", CVPR 2020, eq. 8.
    """
    p = probabilities(inputs.target_logits)
    return float(torch.linalg.matrix_norm(p, "nuc")) / len(p)


@register_validator("mano")
def mano(inputs: ValidatorInputs) -> float:
    """Fourth norm of the normalised target logits (MaNo); confident images count most.

    (mean over images and classes of s^4)^(1/4). s is the softmax if the mean cross-entropy of the logits with uniform
    labels is above 5 nats. Otherwise s is the second-order Taylor expansion of it, 1 + q + q^2 / 2 divided by its sum
    over classes, which is less overconfident for badly calibrated logits q. The authors' code subtracts the smallest
    term of each image before it divides; this follows the paper.
    Source: Xie et al., "MaNo: exploiting matrix norm for unsupervised accuracy estimation under distribution shifts",
    NeurIPS 2024, eq. 6 to 8.
    """
    logits = inputs.target_logits.double()
    if -float(logits.log_softmax(1).mean()) > TAYLOR_BELOW:
        normalised = logits.softmax(1)
    else:
        terms = 1 + logits + logits.square() / 2
        normalised = terms / terms.sum(1, keepdim=True)
    return float(normalised.pow(4).mean().pow(0.25))


@register_validator("coverage")
def coverage(inputs: ValidatorInputs) -> float:
    """Share of target images whose top probability reaches 0.9."""
    return float((probabilities(inputs.target_logits).amax(1) >= 0.9).double().mean())
