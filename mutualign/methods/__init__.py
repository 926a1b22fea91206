"""Methods of domain adaptation. One file each; importing this package registers all of them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from mutualign.methods.base import (
    Adversary,
    Losses,
    Method,
    Metrics,
    ParameterGroup,
    PseudoLabeller,
    Update,
    accuracy,
    mean_of,
)
from mutualign.methods.registry import METHODS, MethodEntry, NoConfig, register_method

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
for _name in sorted(METHODS):  # by name, not in the order of imports
    METHODS[_name] = METHODS.pop(_name)

__all__ = [
    "METHODS",
    "Adversary",
    "Losses",
    "Method",
    "MethodEntry",
    "Metrics",
    "NoConfig",
    "ParameterGroup",
    "PseudoLabeller",
    "Update",
    "accuracy",
    "mean_of",
    "register_method",
]
