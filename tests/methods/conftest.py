"""What the tests of methods share: tiny classifiers and batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mutualign.data.types import Batch
from mutualign.methods import METHODS, Method
from mutualign.nn.backbones import ManiCNN
from mutualign.nn.classifier import Classifier


@pytest.fixture
def build() -> Callable[..., Method]:
    """An method by name over a new tiny classifier; keywords are its config's."""

    def build(name, shape=(3, 12, 12), classes=3, seed=0, **config):
        torch.manual_seed(seed)
        config_type, method_type = METHODS[name]
        return method_type(Classifier(ManiCNN(*shape), classes), config_type(**config))

    return build


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Random images of both domains, the source's classes in turn; the target only where the method uses it."""

    def make_batch(method, n_source=8, n_target=6, shape=(3, 12, 12), labels=None, seed=1):
        rng = torch.Generator().manual_seed(seed)
        n_target = n_target if method.uses_target else 0
        if labels is None:
            labels = torch.arange(n_source) % method.classifier.classes
        return Batch(torch.rand(n_source + n_target, *shape, generator=rng), labels)

    return make_batch
