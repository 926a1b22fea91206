"""What a backbone is, and the registry of backbones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import nn

from mutualign.errors import MutualignError, nearest
from mutualign.nn.heads import WideLinear


class Backbone(nn.Module):
    """A network from images [n, channels, height, width], with values in [0, 1], to features [n, feature_dim]."""

    feature_dim: int

    def head(self, classes: int) -> nn.Module:
        """Return a new classification head, from these features to logits, float32 under autocast too."""
        return WideLinear(self.feature_dim, classes)

    def slower_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters to which a recipe's `backbone_lr_factor` applies: all of the backbone's."""
        return self.parameters()


BackboneFactory = Callable[[int, int, int], Backbone]  # channels, height, width
FamilyFactory = Callable[[str, int, int, int], Backbone]  # name within the family, channels, height, width
BACKBONES: dict[str, BackboneFactory] = {}
FAMILIES: dict[str, FamilyFactory] = {}  # by prefix, such as timm: for timm:NAME

B = TypeVar("B", bound=BackboneFactory)
F = TypeVar("F", bound=FamilyFactory)


def register_backbone(name: str) -> Callable[[B], B]:
    """Decorator: make a backbone available by name to recipes and `--backbone`."""

    def register(factory: B) -> B:
        BACKBONES[name] = factory
        return factory

    return register


def register_family(prefix: str) -> Callable[[F], F]:
    """Decorator: make the networks of a library available as `prefix` + their name there."""

    def register(factory: F) -> F:
        FAMILIES[prefix] = factory
        return factory

    return register


def require_known(name: str) -> None:
    """Raise MutualignError unless a backbone of this name is registered, or a family whose prefix it has."""
    if name not in BACKBONES and family_of(name) is None:
        others = " or ".join(f"{prefix}NAME, any model of {prefix.rstrip(':')}" for prefix in FAMILIES)
        raise MutualignError(f'unknown backbone "{name}"; {nearest(name, BACKBONES)} (or {others})')


def family_of(name: str) -> str | None:
    """Return the prefix of the family that a name belongs to, if any."""
    return next((prefix for prefix in FAMILIES if name.startswith(prefix) and name != prefix), None)


def build_backbone(name: str, channels: int, height: int, width: int) -> Backbone:
    """Build a backbone for images of a shape, initialised from torch's global generator.

    Raises MutualignError for an unknown name, a size that the network cannot take, or a library that is not installed.
    """
    require_known(name)
    if prefix := family_of(name):
        return FAMILIES[prefix](name.removeprefix(prefix), channels, height, width)
    return BACKBONES[name](channels, height, width)
