"""What the tests of algorithms share: tiny classifiers and batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mutualign.algorithms import ALGORITHMS, Algorithm
from mutualign.data.images import Batch
from mutualign.nn.backbones import Classifier, PublishedCNN


@pytest.fixture
def build() -> Callable[..., Algorithm]:
    """An algorithm by name over a new tiny classifier; keywords are its config's."""

    def build(name, shape=(3, 12, 12), classes=3, seed=0, **config):
        torch.manual_seed(seed)
        config_type, algorithm_type = ALGORITHMS[name]
        return algorithm_type(Classifier(PublishedCNN(*shape), classes), config_type(**config))

    return build


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Random images of both domains, the source's classes in turn; the target only where the method uses it."""

    def make_batch(algorithm, n_source=8, n_target=6, shape=(3, 12, 12), labels=None, seed=1):
        rng = torch.Generator().manual_seed(seed)
        n_target = n_target if algorithm.uses_target else 0
        if labels is None:
            labels = torch.arange(n_source) % algorithm.classifier.classes
        return Batch(torch.rand(n_source + n_target, *shape, generator=rng), labels)

    return make_batch
