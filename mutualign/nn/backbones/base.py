"""What a backbone is, and the registry of backbones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from mutualign.errors import MutualignError, nearest

TIMM = "timm:"  # prefix of the name of a timm backbone


class Backbone(nn.Module):
    """A network from images [n, channels, height, width] to features [n, feature_dim]."""

    feature_dim: int

    def head(self, classes: int) -> nn.Module:
        """Return a new classification head for these features; it gives logits."""
        return nn.Linear(self.feature_dim, classes)


BackboneFactory = Callable[[int, int, int], Backbone]  # channels, height, width
BACKBONES: dict[str, BackboneFactory] = {}

B = TypeVar("B", bound=BackboneFactory)


def register_backbone(name: str) -> Callable[[B], B]:
    """Decorator: make a backbone available by name to recipes and `--backbone`."""

    def register(factory: B) -> B:
        BACKBONES[name] = factory
        return factory

    return register


def require_known(name: str) -> None:
    """Raise MutualignError unless a backbone of this name is registered, or the name has the form timm:NAME."""
    if name not in BACKBONES and name.removeprefix(TIMM) in ("", name):
        raise MutualignError(f'unknown backbone "{name}"; {nearest(name, BACKBONES)} (or timm:NAME, any model of timm)')


def build_backbone(name: str, channels: int, height: int, width: int) -> Backbone:
    """Build a backbone for images of a shape, initialised from torch's global generator.

    Raises MutualignError for an unknown name, a size that the network cannot take, and a timm backbone where timm is
    not installed.
    """
    require_known(name)
    if name.startswith(TIMM):
        from mutualign.nn.backbones.timm import TimmBackbone

        return TimmBackbone(name.removeprefix(TIMM), channels, height, width)
    return BACKBONES[name](channels, height, width)
