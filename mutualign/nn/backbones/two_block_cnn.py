"""Two convolution blocks: the network of the recipes `fast` and `best`."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.errors import MutualignError
from mutualign.nn.backbones.base import Backbone, register_backbone
from mutualign.nn.image_convolution import ImageConv2d
from mutualign.nn.layers import BatchNorm2d, Dropout, standardise


@register_backbone("two_block_cnn")
class TwoBlockCNN(Backbone):
    """Two blocks of convolutions, each ending in max-pool 2 - batch norm - ReLU; dropout 0.25; linear to 128 - ReLU.

    The first is a conv 5x5 to 32, the second a conv 3x3 to 64 - batch norm - ReLU - conv 3x3 to 64. Each image is
    standardised first, channel by channel, which makes the network invariant to contrast and brightness. Pooling comes
    before normalisation, which then has a quarter of the values (as in airbench, Jordan, 2024). Raises MutualignError
    for images below 12x12.
    """

    feature_dim = 128

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        rows, columns = (((side - 4) // 2 - 2) // 2 for side in (height, width))
        if min(rows, columns) < 1:
            raise MutualignError(
                f"backbone two_block_cnn: images of {height}x{width} are too small; it takes 12x12 or more\n"
                "  hint:    use larger images, or the backbone mlp, which takes any size"
            )
        self.conv1 = ImageConv2d(channels, 32, side=5, bias=False)
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
