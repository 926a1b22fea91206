"""What a validator sees, and the registry of validators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class ValidatorInputs:
    """Outputs of a model for images of both domains. There is no field for target labels.

    Features wider than 256 are projected to 256 dimensions at random, the same for all.
    """

    target_logits: Float[Tensor, "target classes"]
    target_features: Float[Tensor, "target features"]
    view_logits: Float[Tensor, "target classes"]  # of the same target images, each slightly changed
    source_logits: Float[Tensor, "source classes"]  # of held-out source images
    source_features: Float[Tensor, "source features"]
    source_labels: Int64[Tensor, " source"]
    trained_features: Float[Tensor, "trained features"]  # of source images from the training set
    class_weights: Float[Tensor, "classes inputs"] | None = None  # of the head's last layer, if it is linear


Validator = Callable[[ValidatorInputs], float]  # higher for a better model
VALIDATORS: dict[str, Validator] = {}


def register_validator(name: str) -> Callable[[Validator], Validator]:
    """Decorator: make a label-free score available by name to selection, sweeps and reports.

    >>> @register_validator("nothing")
    ... def nothing(inputs):
    ...     '''Score every model 0.'''
    ...     return 0.0
    >>> VALIDATORS.pop("nothing") is nothing
    True
    """

    def register(validator: Validator) -> Validator:
        VALIDATORS[name] = validator
        return validator

    return register


def probabilities(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """Return the softmax in double precision."""
    return logits.double().softmax(1)


def entropy(probabilities: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """Return the Shannon entropy in nats."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1)
