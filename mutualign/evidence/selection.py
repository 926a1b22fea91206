"""Validators: label-free scores of a model on the target, higher is better; what the epoch is chosen by."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor


def entropy(probabilities: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """Shannon entropy in nats."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1)


def target_entropy(logits: Float[Tensor, "n classes"]) -> float:
    """-E H(p): confident predictions score high, be they right or wrong, and a collapse to one class highest."""
    return -float(entropy(logits.double().softmax(1)).mean())


def information_maximisation(logits: Float[Tensor, "n classes"]) -> float:
    """H(E p) - E H(p), in nats: confident predictions, spread over the classes.

    Between 0 and ln(classes). Source: Shi and Sha, "Information-theoretical learning of discriminative clusters for
    unsupervised domain adaptation", ICML 2012.
    """
    probabilities = logits.double().softmax(1)
    return float(entropy(probabilities.mean(0)) - entropy(probabilities).mean())


VALIDATORS: dict[str, Callable[[Tensor], float]] = {
    "information_maximisation": information_maximisation,
    "target_entropy": target_entropy,
}
DEFAULT_VALIDATOR = "information_maximisation"


def scores(logits: Float[Tensor, "n classes"]) -> dict[str, float]:
    """Every validator's score of the logits of unlabelled target images."""
    return {name: validator(logits) for name, validator in VALIDATORS.items()}
