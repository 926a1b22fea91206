"""A classifier: a backbone and a classification head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.nn.backbones.base import Backbone


class Outputs(NamedTuple):
    """What a classifier returns for n images: float32, on the CPU."""

    logits: Float[Tensor, "n classes"]
    features: Float[Tensor, "n features"]
    vectors: Float[Tensor, "n inputs"] | None = None  # the input, if asked for, and if it is vectors and not images


class Classifier(nn.Module):
    """A backbone, `features`, and a classification head, `head`; calling it returns logits."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.features = backbone
        self.head = backbone.head(classes)
        self.feature_dim = backbone.feature_dim
        self.classes = classes
        # In bf16 on a CPU, oneDNN's convolutions are several times faster in this layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def class_weights(self) -> Float[Tensor, "classes inputs"] | None:
        """The weights of the head's last layer, on the CPU; None if that is not a linear layer with a row per class."""
        layers = [layer for layer in self.head.modules() if isinstance(layer, nn.Linear)]
        if not layers or layers[-1].out_features != self.classes:
            return None
        return layers[-1].weight.detach().float().cpu()

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n classes"]:
        return self.head(self.features(images))  # type: ignore[no-any-return]
