"""A multi-layer perceptron for feature vectors."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.nn.backbones.base import Backbone, register_backbone


@register_backbone("mlp")
class MLP(Backbone):
    """flatten - linear to 128 - ReLU - linear to 128 - ReLU: for feature vectors, stored as images of one pixel.

    Values are not scaled. Nothing is normalised over the batch, so a batch may be a single row.
    """

    feature_dim = 128

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels * height * width, self.feature_dim)
        self.linear = nn.Linear(self.feature_dim, self.feature_dim)

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        return F.relu(self.linear(F.relu(self.hidden(images.flatten(1)))))
