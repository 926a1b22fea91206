"""The two-layer network of the published MNIST -> MNIST-M experiment."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.errors import MutualignError
from mutualign.nn.backbones.base import Backbone, register_backbone
from mutualign.nn.heads import ManiHead
from mutualign.nn.image_convolution import ImageConv2d
from mutualign.nn.layers import Dropout


@register_backbone("mani_cnn")
class ManiCNN(Backbone):
    """conv 5x5 to 32 - ReLU - conv 5x5 to 64 - ReLU - max-pool 2 - dropout 0.25; 6,400 features for 28x28 images.

    Here ReLU follows the pooling: the two commute, and a quarter of the values is left. Features are in (row, column,
    channel) order, the memory order of the channels-last convolution. Raises MutualignError for images below 10x10.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        rows, columns = (height - 8) // 2, (width - 8) // 2
        if min(rows, columns) < 1:
            raise MutualignError(
                f"backbone mani_cnn: images of {height}x{width} are too small; it takes 10x10 or more\n"
                "  hint:    use larger images, or the backbone mlp, which takes any size"
            )
        self.feature_dim = 64 * rows * columns
        self.conv1 = ImageConv2d(channels, 32, side=5)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=5)
        self.dropout = Dropout(0.25)

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        maps = F.relu(self.conv1(images))
        maps = F.relu(F.max_pool2d(self.conv2(maps), 2))
        return self.dropout(maps.permute(0, 2, 3, 1).flatten(1))  # type: ignore[no-any-return]

    def head(self, classes: int) -> nn.Module:
        return ManiHead(self.feature_dim, classes)
