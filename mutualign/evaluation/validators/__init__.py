"""Validators: label-free scores of a model. Importing this package registers every file in it.

A validator is a pure function of logits and features, with a higher score for a better model. It may use source
labels; it cannot use target labels, since `ValidatorInputs` does not contain them.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from mutualign.evaluation.validators.base import (
    VALIDATORS,
    Validator,
    ValidatorInputs,
    entropy,
    register_validator,
)
from mutualign.evaluation.validators.combined import kept_information

DEFAULT_VALIDATOR = "combined"  # for selection, estimates and reports alike; see results/blind.json

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def scores(inputs: ValidatorInputs) -> dict[str, float]:
    """Compute every registered validator's score, by name."""
    return {name: validator(inputs) for name, validator in VALIDATORS.items()}


__all__ = [
    "DEFAULT_VALIDATOR",
    "VALIDATORS",
    "Validator",
    "ValidatorInputs",
    "entropy",
    "kept_information",
    "register_validator",
    "scores",
]
