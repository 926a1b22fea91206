"""What the tests of methods share: tiny classifiers and batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mutualign.data.types import Batch
from mutualign.io.typed import parse_typed
from mutualign.methods import METHODS, Method
from mutualign.nn.backbones import ManiCNN
from mutualign.nn.classifier import Classifier


@pytest.fixture
def build() -> Callable[..., Method]:
    """Build a method by name over a new tiny classifier; keywords are its settings."""

    def build(name, shape=(3, 12, 12), classes=3, seed=0, **config):
        torch.manual_seed(seed)
        entry = METHODS[name]
        return entry.build(Classifier(ManiCNN(*shape), classes), parse_typed(config, entry.config, name))

    return build


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Random images of the domains that the method uses; the source's classes in turn."""

    def make_batch(method, n_source=8, n_target=6, shape=(3, 12, 12), labels=None, seed=1):
        rng = torch.Generator().manual_seed(seed)
        n_source, n_target = n_source * method.uses_source, n_target * method.uses_target
        if labels is None or not n_source:
            labels = torch.arange(n_source) % method.classifier.classes
        return Batch(torch.rand(n_source + n_target, *shape, generator=rng), labels, torch.arange(n_target))

    return make_batch
