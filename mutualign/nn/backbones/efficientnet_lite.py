"""EfficientNet-Lite0, 1 and 2: pretrained convolutional networks that are small enough for a CPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.errors import MutualignError
from mutualign.nn.backbones.base import Backbone, register_backbone
from mutualign.nn.layers import BatchNorm2d

FEATURES = 1280
SMALLEST = 32  # pixels: five halvings
BATCH_NORM_EPS = 1e-3  # TensorFlow's
STEM = 32  # channels of the stem, whatever the width


class Stage(NamedTuple):
    """Blocks of one resolution. The last two fields hold for width 1 and depth 1."""

    expansion: int
    kernel: int
    stride: int  # of the first block
    channels: int
    blocks: int


STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


class Variant(NamedTuple):
    """Size of a network, and the side in pixels of the images that it was trained on."""

    width: float
    depth: float
    side: int


VARIANTS = {
    "efficientnet_lite0": Variant(1.0, 1.0, 224),
    "efficientnet_lite1": Variant(1.0, 1.1, 240),
    "efficientnet_lite2": Variant(1.1, 1.2, 260),
}


class EfficientNetLite(Backbone):
    """EfficientNet-Lite from colour images in [0, 1] to 1,280 features; sizes from 32 pixels.

    EfficientNet without squeeze-and-excitation, with ReLU6 instead of swish, and with the same stem and features in
    every variant. Images are scaled to [-1, 1] here. Padding is TensorFlow's "SAME", which the published weights need.
    Source: Tan and Le, "EfficientNet", ICML 2019; the Lite variants are those of github.com/tensorflow/tpu
    (models/official/efficientnet/lite).
    """

    feature_dim = FEATURES

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, variant = name, VARIANTS[name]
        self.side = variant.side
        self.stem = ConvNorm(3, STEM, kernel=3, stride=2)
        self.blocks = nn.Sequential()
        incoming = STEM
        for number, stage in enumerate(STAGES):
            outgoing = scaled_channels(stage.channels, variant.width)
            inner = 0 < number < len(STAGES) - 1  # Lite variants deepen only these
            for block in range(math.ceil(stage.blocks * variant.depth) if inner else stage.blocks):
                stride = stage.stride if block == 0 else 1
                self.blocks.append(Block(incoming, outgoing, stage.kernel, stride, stage.expansion))
                incoming = outgoing
        self.last = ConvNorm(incoming, FEATURES)

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 1280"]:
        """Return the features: the mean over positions of the last convolution."""
        maps = F.relu6(self.stem(2 * images - 1))
        return F.relu6(self.last(self.blocks(maps))).mean((2, 3))

    def load_in_order(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights whose order is that of the network and whose names differ, as in timm and the published files.

        Tensors after the last one of the network, such as a classifier's, are ignored. Raises ValueError that names the
        first tensor of another shape.
        """
        own, given = self.state_dict(), list(tensors.items())
        if len(given) < len(own):
            raise ValueError(f"{len(given)} tensors; {self.name} has {len(own)}")
        for (key, expected), (name, tensor) in zip(own.items(), given, strict=False):
            if expected.shape != tensor.shape:
                raise ValueError(
                    f'tensor "{name}" has the shape {tuple(tensor.shape)}; {self.name} needs {tuple(expected.shape)}'
                    f" ({key})"
                )
        self.load_state_dict({key: tensor for key, (_, tensor) in zip(own, given, strict=False)})


def _build(name: str, channels: int, height: int, width: int) -> EfficientNetLite:
    if channels != 3 or min(height, width) < SMALLEST:
        raise MutualignError(
            f"backbone {name}: images of {height}x{width} with {channels} channel(s); it takes colour images of "
            f"{SMALLEST}x{SMALLEST} or more\n  hint:    give larger images, or choose another backbone"
        )
    return EfficientNetLite(name)


register_backbone("efficientnet_lite0")(partial(_build, "efficientnet_lite0"))
register_backbone("efficientnet_lite1")(partial(_build, "efficientnet_lite1"))
register_backbone("efficientnet_lite2")(partial(_build, "efficientnet_lite2"))


class Block(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution, linear 1x1 projection; the input is added if it fits.

    An expansion of 1 has no 1x1 convolution of its own. Source: Sandler et al., "MobileNetV2", CVPR 2018.
    """

    def __init__(self, incoming: int, outgoing: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = incoming * expansion
        self.expand = ConvNorm(incoming, wide) if expansion > 1 else None
        self.depthwise = ConvNorm(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.project = ConvNorm(wide, outgoing)
        self.residual = stride == 1 and incoming == outgoing

    def forward(self, maps: Float[Tensor, "n incoming height width"]) -> Float[Tensor, "n outgoing rows columns"]:
        wide = maps if self.expand is None else F.relu6(self.expand(maps))
        changed = self.project(F.relu6(self.depthwise(wide)))
        return maps + changed if self.residual else changed  # type: ignore[no-any-return]


class ConvNorm(nn.Module):
    """Convolution with "SAME" padding and without bias, then batch norm."""

    def __init__(self, incoming: int, outgoing: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        # At stride 1, "SAME" is symmetric, and the convolution pads by itself, which is faster.
        inside = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(incoming, outgoing, kernel, stride, inside, groups=groups, bias=False)
        self.norm = BatchNorm2d(outgoing, eps=BATCH_NORM_EPS)

    def forward(self, maps: Float[Tensor, "n incoming height width"]) -> Float[Tensor, "n outgoing rows columns"]:
        if self.conv.stride[0] > 1:
            maps = pad_same(maps, self.conv.kernel_size[0], self.conv.stride[0])
        return self.norm(self.conv(maps))  # type: ignore[no-any-return]


def pad_same(maps: Float[Tensor, "n c height width"], kernel: int, stride: int) -> Float[Tensor, "n c rows columns"]:
    """Pad with zeros so that a convolution gives ceil(size / stride) positions; an odd zero goes to the end.

    >>> pad_same(torch.zeros(1, 1, 224, 225), kernel=3, stride=2).shape
    torch.Size([1, 1, 225, 227])
    """
    missing = [max((math.ceil(size / stride) - 1) * stride + kernel - size, 0) for size in maps.shape[2:]]
    (above, below), (left, right) = [(count // 2, count - count // 2) for count in missing]
    return F.pad(maps, (left, right, above, below))


def scaled_channels(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8, but never down by more than a tenth.

    >>> [scaled_channels(channels, 1.1) for channels in (16, 24, 320)]
    [16, 24, 352]
    """
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels * width else rounded + 8
