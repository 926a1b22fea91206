"""The exported network: from pixels as they are stored to class probabilities."""

from __future__ import annotations

from copy import deepcopy

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from mutualign.data.features.network import FromPixels
from mutualign.data.types import ImageShape, Pixels, to_floats
from mutualign.nn.classifier import Classifier
from mutualign.nn.weights import NetworkWeights


class ExportedNetwork(nn.Module):
    """A copy of a classifier, with the conversion of pixels before it and the softmax after it.

    A classifier of features has the network `frozen` before it, and features are rounded to float16 as in
    training. `example` is a batch of two black images: exporters treat a batch of one as a constant size.
    """

    def __init__(
        self, classifier: Classifier, shape: ImageShape, pixels: torch.dtype, frozen: NetworkWeights | None = None
    ) -> None:
        super().__init__()
        self.classifier = deepcopy(classifier).requires_grad_(False)
        # The exporters warn about weights in channels-last memory.
        self.classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.frozen = FromPixels(frozen.load()) if frozen else None
        self.shape = shape
        self.example = torch.zeros(2, shape.height, shape.width, shape.channels, dtype=pixels)
        self.eval()

    def forward(self, pixels: Pixels) -> Float32[Tensor, "n classes"]:
        return self.classifier(self._inputs(pixels)).softmax(1)  # type: ignore[no-any-return]

    def _inputs(self, pixels: Pixels) -> Float32[Tensor, "n channels rows columns"]:
        if self.frozen is None:
            return to_floats(pixels, self.shape.channels)
        return self.frozen(pixels).half().float()[:, :, None, None]  # type: ignore[no-any-return]
