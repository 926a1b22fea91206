"""A small residual network for images of 48 pixels and more."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.errors import MutualignError
from mutualign.nn.backbones.base import Backbone, register_backbone
from mutualign.nn.layers import BatchNorm2d, standardise


@register_backbone("small_resnet")
class SmallResNet(Backbone):
    """A stem that makes large images small; residual blocks to 32, 64 and 128 channels; the mean over pixels.

    Each image is standardised first, channel by channel. The stem is a conv 3x3 to 32 - batch norm - ReLU, of stride 2
    if the shorter side has 48 pixels or more, and repeated from 96, 192, 384, ... pixels on, so that the shorter side
    of its maps is 24 to 48 for larger images. Each block halves the sides. For a 64x64 colour image: 308,448
    parameters, 13 million multiply-adds, without the head. Raises MutualignError for images below 9x9.
    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    feature_dim = 128

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        if min(height, width) < 9:  # the last maps must have several pixels: batch norm of a single image
            raise MutualignError(
                f"backbone small_resnet: images of {height}x{width} are too small; it takes 9x9 or more\n"
                "  hint:    use larger images, or the backbone mlp, which takes any size"
            )
        halvings = max(min(height, width) // 24, 1).bit_length() - 1
        widths = [channels] + [32] * max(halvings, 1)
        stride = 2 if halvings else 1
        stem = [layer for pair in pairwise(widths) for layer in (_conv_norm(*pair, 3, stride), nn.ReLU())]
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.Sequential(ResidualBlock(32, 32), ResidualBlock(32, 64), ResidualBlock(64, 128))

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        return self.blocks(self.stem(standardise(images))).mean((2, 3))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """ReLU(conv 1x1 - batch norm + conv 3x3 - batch norm - ReLU - conv 3x3 - batch norm); halves the sides, upwards."""

    def __init__(self, channels: int, wanted: int) -> None:
        super().__init__()
        self.first = _conv_norm(channels, wanted, 3, stride=2)
        self.second = _conv_norm(wanted, wanted, 3, stride=1)
        self.shortcut = _conv_norm(channels, wanted, 1, stride=2)

    def forward(self, maps: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n wanted rows columns"]:
        return F.relu(self.shortcut(maps) + self.second(F.relu(self.first(maps))))


def _conv_norm(channels: int, wanted: int, side: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, wanted, side, stride, padding=side // 2, bias=False)
    return nn.Sequential(convolution, BatchNorm2d(wanted))
