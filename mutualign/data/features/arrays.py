"""Features of images in memory, as the estimator has them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from mutualign.data.features.network import feature_network
from mutualign.data.types import Pixels, UnlabelledImages, to_floats
from mutualign.nn.weights import NetworkWeights

AT_ONCE = 16  # images that are scaled, and go through the network, at once


def features_of(pixels: Pixels, network: NetworkWeights) -> Float32[Tensor, "n 1 1 features"]:
    """Return the features [n, 1, 1, features] of images [n, height, width, channels] by a pretrained network.

    The middle square of each image is scaled to the network's size; grey ones are repeated to three channels. Raises
    ValueError for other numbers of channels, MutualignError if the network's weights are not installed.
    """
    if (channels := pixels.shape[3]) not in (1, 3):
        raise ValueError(
            f"X has images of {channels} channels; {network.network} takes grey ones, of 1, and colour ones, of 3\n"
            "  hint:    leave out transparency: X[..., :3] of colour images, X[..., :1] of grey ones"
        )
    side, compute = network.side, feature_network(network)
    height, width = pixels.shape[1:3]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    squares = pixels[:, top : top + edge, left : left + edge]  # what `predict` sees of a photo too
    found = []
    for start in range(0, len(pixels), AT_ONCE):
        images = to_floats(squares[start : start + AT_ONCE], 3)
        scaled = F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        found.append(compute((255 * scaled).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()))
    return torch.cat(found)[:, None, None, :]


def as_input(pixels: Pixels, network: NetworkWeights | None) -> UnlabelledImages:
    """Return images as they are, or their features if a network is named."""
    return UnlabelledImages(features_of(pixels, network) if network else pixels)
