"""Backbones: networks from images to features, and the classifier that puts a head on one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.errors import MutualignError, nearest
from mutualign.nn.heads import ClassHead
from mutualign.nn.layers import BatchNorm2d, Dropout


class Backbone(nn.Module):
    """Images to features; each kind says which head its features go to."""

    feature_dim: int

    def head(self, classes: int) -> nn.Module:
        """A new head for these features: logits."""
        return ClassHead(self.feature_dim, classes)


class PublishedCNN(Backbone):
    """conv 5x5 to 32 - ReLU - conv 5x5 to 64 - ReLU - max-pool 2 - dropout 0.25; 6,400 features for 28x28 images.

    ReLU comes after the pooling here: the maximum and ReLU commute, and a quarter of the values is left to do. The
    features are in (row, column, channel) order, which is how the channels-last convolution leaves them.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        rows, columns = (height - 8) // 2, (width - 8) // 2
        if min(rows, columns) < 1:
            raise MutualignError(
                f"backbone published_cnn: images of {height}x{width} are too small; it takes 10x10 or more\n"
                "  do       give larger images, or choose the backbone mlp, which takes any size"
            )
        self.feature_dim = 64 * rows * columns
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=5)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=5)
        self.dropout = Dropout(0.25)

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        maps = F.relu(self.conv1(images))
        maps = F.relu(F.max_pool2d(self.conv2(maps), 2))
        return self.dropout(maps.permute(0, 2, 3, 1).flatten(1))  # type: ignore[no-any-return]


class TwoBlockCNN(Backbone):
    """Two blocks of convolutions, each ending in max-pool 2 - batch norm - ReLU; dropout 0.25; linear to 128 - ReLU.

    The first is a conv 5x5 to 32, the second a conv 3x3 to 64 - batch norm - ReLU - conv 3x3 to 64. Each image is
    standardised first, channel by channel, so that contrast and brightness tell nothing. Pooling comes before the
    normalisation, which then works on a quarter of the values (as in airbench, Jordan, 2024).
    """

    feature_dim = 128

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        rows, columns = (((side - 4) // 2 - 2) // 2 for side in (height, width))
        if min(rows, columns) < 1:
            raise MutualignError(
                f"backbone two_block_cnn: images of {height}x{width} are too small; it takes 12x12 or more\n"
                "  do       give larger images, or choose the backbone mlp, which takes any size"
            )
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=5, bias=False)
        self.norm1 = BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1, bias=False)
        self.norm2 = BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 64, kernel_size=3, bias=False)
        self.norm3 = BatchNorm2d(64)
        self.dropout = Dropout(0.25)
        self.linear = nn.Linear(64 * rows * columns, self.feature_dim)

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        maps = F.relu(self.norm1(F.max_pool2d(self.conv1(standardise(images)), 2)))
        maps = F.relu(self.norm2(self.conv2(maps)))
        maps = F.relu(self.norm3(F.max_pool2d(self.conv3(maps), 2)))
        return F.relu(self.linear(self.dropout(maps.permute(0, 2, 3, 1).flatten(1))))

    def head(self, classes: int) -> nn.Module:
        return nn.Linear(self.feature_dim, classes)


class MLP(Backbone):
    """flatten - linear to 128 - ReLU - linear to 128 - ReLU: for feature vectors, stored as images of one pixel.

    Values are taken as they are. Nothing is normalised over the batch, so that a batch may be a single row.
    """

    feature_dim = 128

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels * height * width, self.feature_dim)
        self.linear = nn.Linear(self.feature_dim, self.feature_dim)

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        return F.relu(self.linear(F.relu(self.hidden(images.flatten(1)))))

    def head(self, classes: int) -> nn.Module:
        return nn.Linear(self.feature_dim, classes)


class SmallResNet(Backbone):
    """A stem that makes large images small; residual blocks to 32, 64 and 128 channels; the mean over pixels.

    Each image is standardised first, channel by channel. The stem is a conv 3x3 to 32 - batch norm - ReLU where the
    shorter side is below 48 pixels, one of stride 2 from 48, two of these from 96, three from 192, and so on: the maps
    of larger images have a shorter side of 24 to 48, and the weights hardly grow. Each block halves the sides. For a
    64x64 colour image: 308,448 parameters, 13 million multiply-adds; without the head.
    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    feature_dim = 128

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        if min(height, width) < 9:  # the last maps must have several pixels: batch norm of a single image
            raise MutualignError(
                f"backbone small_resnet: images of {height}x{width} are too small; it takes 9x9 or more\n"
                "  do       give larger images, or choose the backbone mlp, which takes any size"
            )
        halvings = max(min(height, width) // 24, 1).bit_length() - 1
        widths = [channels] + [32] * max(halvings, 1)
        stride = 2 if halvings else 1
        stem = [layer for pair in pairwise(widths) for layer in (_conv_norm(*pair, 3, stride), nn.ReLU())]
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.Sequential(ResidualBlock(32, 32), ResidualBlock(32, 64), ResidualBlock(64, 128))

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        return self.blocks(self.stem(standardise(images))).mean((2, 3))  # type: ignore[no-any-return]

    def head(self, classes: int) -> nn.Module:
        return nn.Linear(self.feature_dim, classes)


class ResidualBlock(nn.Module):
    """ReLU(conv 1x1 - batch norm + conv 3x3 - batch norm - ReLU - conv 3x3 - batch norm); the sides are halved, up."""

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


def standardise(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
    """Every channel of every image less its mean, over its standard deviation (plus 0.05: a flat one stays flat).

    From two sums over (row and column) in channels-last order: torch.std_mean takes four times as long there on CPU.
    """
    n, channels, height, width = images.shape
    values = images.float().permute(0, 2, 3, 1).reshape(n, height * width, channels)
    mean = values.mean(1, keepdim=True)
    deviation = (values.square().mean(1, keepdim=True) - mean.square()).clamp_min(0).sqrt()
    scale = 1 / (deviation + 0.05)
    return torch.addcmul(-mean * scale, values, scale).view(n, height, width, channels).permute(0, 3, 1, 2)


BACKBONES: dict[str, Callable[[int, int, int], Backbone]] = {
    "published_cnn": PublishedCNN,
    "two_block_cnn": TwoBlockCNN,
    "small_resnet": SmallResNet,
    "mlp": MLP,
}
TIMM = "timm:"  # begins the name of a backbone of the timm library


def require_known(name: str) -> None:
    """Raise MutualignError unless the name is in BACKBONES or of the form timm:NAME; timm's own are known to timm."""
    if name not in BACKBONES and name.removeprefix(TIMM) in ("", name):
        raise MutualignError(f'unknown backbone "{name}"; {nearest(name, BACKBONES)} (or timm:NAME, any model of timm)')


def build_backbone(name: str, channels: int, height: int, width: int) -> Backbone:
    """A backbone by name for images of a shape, initialised from torch's global generator.

    Raises MutualignError for an unknown name, a size that the network cannot take, or if it needs timm and that is
    not installed.
    """
    require_known(name)
    if name.startswith(TIMM):
        from mutualign.nn.pretrained import TimmBackbone  # a backbone too: it imports this module

        return TimmBackbone(name.removeprefix(TIMM), channels, height, width)
    return BACKBONES[name](channels, height, width)


class Classifier(nn.Module):
    """A backbone and a class head; `features` and `head` are used apart by the algorithms. Gives logits."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.features = backbone
        self.head = backbone.head(classes)
        self.feature_dim = backbone.feature_dim
        self.classes = classes
        # channels-last: with bf16 on CPU, oneDNN's convolutions are several times faster in this layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n classes"]:
        return self.head(self.features(images))  # type: ignore[no-any-return]
