"""Settings of features: which frozen network, and how many views of each photo."""

from __future__ import annotations

from dataclasses import dataclass

from mutualign.nn.weights import PRETRAINED, NetworkWeights

MOST_VIEWS = 64


@dataclass(frozen=True)
class FeatureSettings:
    """Features of a frozen pretrained network for several views of each photo; raises ValueError for odd numbers."""

    network: str = "efficientnet_lite2"
    views: int = 4  # the photo, its mirror image, and random crops
    weights: str = PRETRAINED  # of the network
    sha256: str = ""  # of the file with the weights, if that is not a published one

    def __post_init__(self) -> None:
        if not 1 <= self.views <= MOST_VIEWS:
            raise ValueError(f"views must be from 1 to {MOST_VIEWS}, got {self.views}")

    @property
    def pretrained(self) -> NetworkWeights:
        """The network and its weights."""
        return NetworkWeights(self.network, self.weights, self.sha256)
