"""A network for feature vectors, for as long as there is no backbone `mlp`."""

from __future__ import annotations

from torch import Tensor, nn

from mutualign.nn.backbones import BACKBONES, Backbone


class TwoLayers(Backbone):
    feature_dim = 64

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * height * width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


BACKBONES.setdefault("mlp", TwoLayers)
