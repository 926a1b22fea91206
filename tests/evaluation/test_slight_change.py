"""The slight change of images that should keep their class: of vectors, relative to their scale."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mutualign.data.augment import AugmentConfig, strong_views
from mutualign.data.features.settings import FeatureSettings
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.evaluation.measure import slight_change
from mutualign.training.distributed import make_fabric
from mutualign.training.inference import predict_logits
from tests.tiny_task import make_tiny_task

N, WIDTH, CLASSES = 400, 6, 3


def vectors(scale):
    """A task of Gaussian classes whose features are multiplied by a scale."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % CLASSES
    values = 2 * torch.randn(CLASSES, WIDTH, generator=rng)[labels] + torch.randn(N, WIDTH, generator=rng)
    images = UnlabelledImages((values * scale)[:, None, None, :].contiguous())
    source, target = LabelledImages(images, labels), TargetDataset(images, labels)
    return Task("vectors", "made in a test", ("a", "b", "c"), source, source, target, target)


class Linear(torch.nn.Module):
    """A linear classifier that undoes a scale."""

    def __init__(self, scale):
        super().__init__()
        self.weights = torch.randn(WIDTH, CLASSES, generator=torch.Generator().manual_seed(1))
        self.scale = scale

    def forward(self, images):
        return (images.flatten(1) / self.scale) @ self.weights


@pytest.mark.parametrize("scale", [1000.0, 1e-3, torch.tensor([1.0, 1e3, 1e-3, 50.0, 0.2, 7.0])])
def test_vectors_change_relative_to_the_scale_of_each_feature(scale):
    def changed(scale):
        task = vectors(scale)
        images, fabric = task.target_train.images, make_fabric("float32", "cpu")
        return predict_logits(Linear(scale), images, WIDTH, fabric, key=3, view=slight_change(task, images))

    assert torch.allclose(changed(scale), changed(1.0), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(
        changed(1.0),
        predict_logits(Linear(1.0), vectors(1.0).target_train.images, WIDTH, make_fabric("float32", "cpu")),
        atol=1e-2,
    )


def test_the_change_is_a_tenth_of_a_features_deviation():
    task = vectors(torch.logspace(-3, 3, WIDTH))
    images = task.target_train.images.pixels.permute(0, 3, 1, 2)
    torch.manual_seed(0)
    change = slight_change(task, task.target_train.images)(images) - images
    assert (change.std(0) / images.std(0)).flatten().tolist() == pytest.approx([0.1] * WIDTH, rel=0.15)
    still = UnlabelledImages(torch.ones(5, 1, 1, WIDTH))
    batch = torch.ones(5, WIDTH, 1, 1)
    assert torch.equal(slight_change(task, still)(batch), batch)  # a feature that is constant stays so


def test_the_order_of_the_vectors_does_not_matter():
    """In batches of one class each, deviations within a batch would miss the distances between classes."""
    task = vectors(1.0)
    labels = task.target_train.reveal_labels()
    images = task.target_train.images.subset(labels.argsort(stable=True))
    torch.manual_seed(0)
    change = slight_change(task, images)
    batches = images.pixels.permute(0, 3, 1, 2).split(N // CLASSES)
    noise = torch.cat([change(batch) - batch for batch in batches])
    deviations = images.pixels.flatten(1).std(0, correction=0)
    assert (noise.flatten(1).std(0) / deviations).tolist() == pytest.approx([0.1] * WIDTH, rel=0.15)


def test_features_of_several_views_change_to_those_of_the_mirror_image():
    task = replace(vectors(1.0), features=FeatureSettings(views=4))
    batch = torch.arange(24.0).view(2, 3, 4, 1)  # images, features, views
    changed = slight_change(task, task.target_train.images)(batch)
    assert torch.equal(changed[:, :, 0], batch[:, :, 1])  # the first view is the photo, the second its mirror image


def test_images_change_by_half_a_strong_views_geometry_and_a_third_of_its_colour():
    task = make_tiny_task()
    batch = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    changed = slight_change(task, task.target_train.images)(batch)
    torch.manual_seed(0)
    settings = AugmentConfig(geometry=0.5, colour=0.3, solarise=0.0, inversion=0.0)
    assert torch.equal(changed, strong_views(batch, settings))
    assert not torch.equal(changed, batch)
