"""timm itself, also where torchvision has no operators for this torch."""

from __future__ import annotations

import warnings
from types import ModuleType

import pytest
import torch

_OPERATORS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",)
_OPERATORS += tuple(one.replace("nms", "qnms", 1) for one in _OPERATORS)


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The real timm. Its import loads torchvision, which fails unless two operators exist; nothing here calls them."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        if not hasattr(torch.ops.torchvision, operator.partition("(")[0]):
            library.define(operator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries
        import timm

    timm._stubs = library  # operators exist as long as their library
    return timm
