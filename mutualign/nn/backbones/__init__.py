"""Backbones: networks from images to features. One file each; importing this package registers them."""

from importlib import import_module
from pkgutil import iter_modules

from mutualign.nn.backbones.base import (
    BACKBONES,
    FAMILIES,
    Backbone,
    build_backbone,
    register_backbone,
    register_family,
    require_known,
)
from mutualign.nn.backbones.mani_cnn import ManiCNN
from mutualign.nn.backbones.mlp import MLP
from mutualign.nn.backbones.small_resnet import SmallResNet
from mutualign.nn.backbones.timm import TIMM
from mutualign.nn.backbones.two_block_cnn import TwoBlockCNN

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "BACKBONES",
    "FAMILIES",
    "MLP",
    "TIMM",
    "Backbone",
    "ManiCNN",
    "SmallResNet",
    "TwoBlockCNN",
    "build_backbone",
    "register_backbone",
    "register_family",
    "require_known",
]
