"""The outputs that a run keeps: features are rounded to float16, whatever their scale."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.evaluation.measure import Evaluator
from mutualign.nn.classifier import Classifier
from mutualign.runs.kept import check_outputs
from mutualign.training.distributed import make_fabric


class Flat(Classifier):
    """A classifier whose features are its inputs, and whose logits are small whatever their scale."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.features = nn.Flatten()
        self.head = lambda features: features / features.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e30])
def test_kept_features_fit_float16_and_differ_by_one_factor_from_what_they_were(scale):
    values = scale * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 3
    images, larger = UnlabelledImages(values[:, None, None, :]), UnlabelledImages(10 * values[:, None, None, :])
    source, target = LabelledImages(images, labels), TargetDataset(larger, None)
    task = Task("vectors", "made in a test", ("a", "b", "c"), source, source, target, target)
    found = Evaluator(task, 0, make_fabric("float32", "cpu")).outputs(Flat())
    check_outputs(found)
    factor = float(found["target_features"].abs().max() / (10 * values.abs().max()))
    assert (factor == pytest.approx(1, rel=1e-3)) == (scale == 1.0)
    for name, expected in (("source_features", values), ("target_features", 10 * values)):
        assert torch.allclose(found[name].float(), expected * factor, rtol=2e-3, atol=1e-3)
