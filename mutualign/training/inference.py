"""Inference: the logits of a network over many images."""

from __future__ import annotations

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn

from mutualign.data.images import UnlabelledImages, to_floats


@torch.no_grad()
def predict_logits(
    network: nn.Module, images: UnlabelledImages, channels: int, fabric: Fabric, key: int = 0, batch_size: int = 500
) -> Float[Tensor, "n classes"]:
    """Logits in evaluation mode, float32, on the CPU; `key` seeds what is random in an access to the images."""
    was_training = network.training
    network.eval()
    logits = []
    try:
        for number, rows in enumerate(torch.split(torch.arange(len(images)), batch_size)):
            pixels = images.take(rows, key + number).to(fabric.device)
            with fabric.autocast():
                logits.append(network(to_floats(pixels, channels)).float().cpu())
    finally:
        network.train(was_training)
    return torch.cat(logits)
