"""From a recipe to the modules that are trained: the classifier and the methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from mutualign.methods import METHODS, Method
from mutualign.nn.backbones import build_backbone
from mutualign.nn.classifier import Classifier
from mutualign.nn.layers import batch_norms
from mutualign.nn.randomness import CPU, separate_draws
from mutualign.recipes import Recipe, Stage


def build_classifier(recipe: Recipe, shape: ImageShape, classes: int) -> Classifier:
    """Build the recipe's classifier for images of a shape, initialised from torch's global generator.

    `backbone_weights` is not read, since the checkpoints of a run contain the trained weights.
    """
    return _build(recipe.backbone, shape, classes)


def _build(backbone: str, shape: ImageShape, classes: int, device: torch.device = CPU) -> Classifier:
    with standard_modes(), device:
        return Classifier(build_backbone(backbone, *shape), classes)


def check_weights(backbone: str, shape: ImageShape, classes: int, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError if weights are not finite, or not those of a classifier; nothing is allocated for it."""
    expected = _build(backbone, shape, classes, torch.device("meta")).state_dict()
    wanted, found = ({name: (one.shape, one.dtype) for name, one in each.items()} for each in (expected, weights))
    if wanted != found:
        raise ValueError("the weights do not belong to the network that is described")
    if broken := [name for name, one in weights.items() if not torch.isfinite(one).all()]:
        raise ValueError(f"the weight {broken[0]} is not finite")


def restore_classifier(backbone: str, shape: ImageShape, classes: int, weights: Mapping[str, Tensor]) -> Classifier:
    """Build a trained classifier, in evaluation mode; torch's generator is left as it was.

    Raises ValueError as `check_weights` does.
    """
    check_weights(backbone, shape, classes, weights)
    with separate_draws():
        classifier = _build(backbone, shape, classes)
    classifier.load_state_dict(weights)
    return classifier.eval()


def initial_classifier(recipe: Recipe, shape: ImageShape, classes: int) -> Classifier:
    """Build the classifier that training starts from, with pretrained weights if the recipe has them.

    Raises MutualignError if the network cannot take the images, or if the weights are missing or of another network.
    """
    classifier = build_classifier(recipe, shape, classes)
    if recipe.initial_weights:
        recipe.initial_weights.load_into(classifier.features)
    return classifier


def check_network(recipe: Recipe, classifier: Classifier) -> None:
    """Raise MutualignError if a stage's method would do nothing in this network."""
    for stage in recipe.stages:
        if METHODS[stage.method].method.needs_batch_norm and not batch_norms(classifier):
            raise MutualignError(
                f"{stage.method} adapts the statistics of batch norm, and the backbone {recipe.backbone} has none\n"
                "  hint:    choose another --backbone, such as two_block_cnn, or another recipe"
            )


def build_method(stage: Stage, classifier: Classifier) -> Method:
    """Build a stage's method over a classifier; what it adds is initialised from torch's global generator."""
    with standard_modes():
        return METHODS[stage.method].build(classifier, stage.options)


@contextmanager
def standard_modes() -> Iterator[None]:
    """Context in which torch computes as it does by default, whatever its caller has set.

    New tensors are float32 and on the CPU, nothing is cast automatically, and gradients are on, also within
    `torch.no_grad` or `torch.inference_mode`. cuDNN, which may add in any order, and choose algorithms by their time,
    computes the same bits every time, or no run on a GPU could resume exactly.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_default_dtype(), cudnn.deterministic, cudnn.benchmark
    torch.set_default_dtype(torch.float32)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with torch.inference_mode(False), torch.enable_grad(), ExitStack() as undone:
            if torch.get_default_device() != CPU:  # else no context, which slows every call a little
                undone.enter_context(CPU)
            for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda", "mps")):
                undone.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        torch.set_default_dtype(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
