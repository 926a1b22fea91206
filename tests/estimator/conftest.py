"""Data and fitted adapters that the tests of the estimator share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mutualign import DomainAdapter
from tests.tiny_task import make_tiny_task

SHORT = ("stages.0.epochs=2", "stages.0.epoch_steps=5")


def clouds(n=60, features=4, seed=0):
    """Vectors of three classes, and the same a little elsewhere: X_source, y_source, X_target, y_target."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, features)) * 4
    y, y_target = rng.integers(3, size=n), rng.integers(3, size=n)
    noise = rng.normal(size=(2, n, features))
    return centres[y] + noise[0], y, centres[y_target] + noise[1] + 0.5, y_target


def both_domains(mask=-1):
    """The clouds as one array, labels with the target's masked, and domains."""
    source, y, target, _ = clouds()
    return np.concatenate([source, target]), np.r_[y, np.full(60, mask)], np.r_[np.ones(60, int), np.full(60, -2)]


def short(recipe="dann", overrides=SHORT, **params):
    return DomainAdapter(recipe, overrides=overrides, **params)


def same_weights(one, other):
    assert one.weights_.keys() == other.weights_.keys()
    return all(torch.equal(one.weights_[name], other.weights_[name]) for name in one.weights_)


@pytest.fixture(scope="session")
def fitted():
    """An adapter fitted on the clouds; not to be changed."""
    source, y, target, _ = clouds()
    return short().fit(source, y, target)


@pytest.fixture(scope="session")
def tiny_images():
    """Grey source images, inverted and coloured target images, 12x12, with labels: as four arrays."""
    task = make_tiny_task()
    source, target = task.source_train, task.target_train
    labels = target.hidden_labels
    return source.images.pixels.numpy(), source.labels.numpy(), target.images.pixels.numpy(), labels.numpy()
