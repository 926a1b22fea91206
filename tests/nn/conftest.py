"""timm itself."""

from __future__ import annotations

import warnings
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def timm(torchvision_operators: None) -> ModuleType:
    """The real timm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries
        import timm
    return timm
