"""A trainable layer over features of a frozen network, or over feature vectors of any model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.nn.backbones.base import Backbone, register_backbone
from mutualign.nn.distributed import draw_rows
from mutualign.nn.layers import BatchNorm1d, Dropout


@register_backbone("bottleneck")
class Bottleneck(Backbone):
    """Linear to 512 - batch norm - ReLU - dropout 0.5, on one of several views of each photo.

    The input has features as channels and views as rows: [n, features, views, 1]. In training, each photo is seen in a
    random view; in evaluation, in its first one. Values are used as they are.
    """

    feature_dim = 512

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, self.feature_dim, bias=False)
        self.norm = BatchNorm1d(self.feature_dim)
        self.dropout = Dropout(0.5)

    def forward(self, images: Float[Tensor, "n features views 1"]) -> Float[Tensor, "n hidden"]:
        return self.dropout(F.relu(self.norm(self.linear(self._choose(images)))))  # type: ignore[no-any-return]

    def _choose(self, images: Float[Tensor, "n features views 1"]) -> Float[Tensor, "n features"]:
        views = images.flatten(2)
        if not self.training or views.shape[2] == 1:
            return views[:, :, 0]
        chosen = draw_rows(len(views), lambda n: torch.randint(views.shape[2], (n,), device=views.device))
        return views[torch.arange(len(views), device=views.device), :, chosen]
