"""Inference: logits and features of many images, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.data.types import UnlabelledImages, to_floats
from mutualign.nn.classifier import Classifier, Outputs
from mutualign.nn.randomness import generator, separate_draws
from mutualign.training.diagnosis import NotFinite
from mutualign.training.fabric import Fabric

KEPT_FEATURES = 256  # dimensions of features for measurement; wider ones are projected
MANY = 20_000  # images; of more than these, inputs that are vectors are projected too
View = Callable[[Tensor], Tensor]  # a random change of a batch of floats


def predict_logits(
    network: nn.Module,
    images: UnlabelledImages,
    channels: int,
    fabric: Fabric,
    key: int = 0,
    view: View | None = None,
    batch_size: int = 500,
) -> Float[Tensor, "n classes"]:
    """Compute logits in evaluation mode: float32, on the CPU.

    `key` seeds images that vary at each access, and the random `view`. The network's mode and torch's generator are
    restored. Raises NotFinite for logits that are NaN or infinite, of which an argmax would make a class.
    """
    with _evaluating(network):
        logits = []
        for batch in _batches(images, channels, fabric, key, view, batch_size):
            with fabric.autocast():
                logits.append(network(batch).float().cpu())
        return _finite(torch.cat(logits), "logits")


def predict(
    network: Classifier,
    images: UnlabelledImages,
    channels: int,
    fabric: Fabric,
    batch_size: int = 500,
    narrow: bool = True,
) -> Outputs:
    """Compute logits and features in one pass; the arguments are those of `predict_logits`.

    With `narrow`, features wider than 256 go through a fixed random projection to 256 dimensions. Without, the result
    also has the input itself if it is vectors: of several views, the first, and of many images, projected likewise.
    """
    logits, features, vectors = [], [], []
    with _evaluating(network):
        for batch in _batches(images, channels, fabric, 0, None, batch_size):
            with fabric.autocast():
                found = network.features(batch)
                logits.append(network.head(found).float().cpu())
            features.append((_narrowed(found.float()) if narrow else found.float()).cpu())
            if not narrow and batch.shape[3] == 1:
                found = batch[:, :, 0, 0].float()
                vectors.append((_narrowed(found) if len(images) > MANY else found).cpu())
    kept = _finite(torch.cat(features), "features")
    return Outputs(_finite(torch.cat(logits), "logits"), kept, torch.cat(vectors) if vectors else None)


def _finite(outputs: Float[Tensor, "n outputs"], what: str) -> Float[Tensor, "n outputs"]:
    """Return a network's outputs. Raises NotFinite that names the first image for which they are NaN or infinite."""
    finite = outputs.isfinite().flatten(1).all(1)
    if finite.all():
        return outputs
    raise NotFinite(
        f"the network's {what} are not finite for {int((~finite).sum()):,} of {len(finite):,} images, "
        f"first number {int(finite.int().argmin())}\n"
        "  hint:    lower the learning rate, try precision=float32, or scale the values of feature vectors"
    )


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)


def _batches(
    images: UnlabelledImages, channels: int, fabric: Fabric, key: int, view: View | None, batch_size: int
) -> Iterator[Tensor]:
    """Yield batches of floats, in the order of the images."""
    for number, rows in enumerate(torch.split(torch.arange(len(images)), batch_size)):
        batch = to_floats(images.take(rows, key + number).to(fabric.device), channels)
        if view is not None:
            with separate_draws(fabric.device, key + number):
                batch = view(batch)
        yield batch


def _narrowed(features: Float[Tensor, "n features"]) -> Float[Tensor, "n kept"]:
    """Project wide features; distances and angles change by about a tenth (Johnson and Lindenstrauss, 1984)."""
    width = features.shape[1]
    if width <= KEPT_FEATURES:
        return features
    drawn = torch.randn(width, KEPT_FEATURES, generator=generator("projection", width), dtype=torch.float32)
    projection = drawn / KEPT_FEATURES**0.5
    return features @ projection.to(features.device)  # type: ignore[no-any-return]
