"""Records hold finite numbers only: a file of JSON could not be read again otherwise."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.evaluation.validators import VALIDATORS, register_validator
from mutualign.methods import METHODS, register_method
from mutualign.methods.source_only import SourceOnly
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from tests.runs.samples import recipe
from tests.tiny_task import make_tiny_task


@pytest.fixture
def nan_everywhere():
    """A method with a metric, and a validator, that are not numbers, as a mean over no images is not."""

    class Hollow(SourceOnly):
        """Source only, with a hollow metric."""

        def forward(self, batch, progress):
            losses, metrics = super().forward(batch, progress)
            return losses, metrics | {"hollow": torch.zeros(0).mean()}

    register_method("hollow")(Hollow)
    register_validator("hollow")(lambda inputs: math.nan)
    yield
    del METHODS["hollow"], VALIDATORS["hollow"]


def test_a_run_whose_metrics_are_not_all_numbers_can_be_read_and_resumed(nan_everywhere, tmp_path):
    Experiment.start(recipe("hollow"), make_tiny_task(), 0, tmp_path / "run").run()
    records = RunFolder.open(tmp_path / "run").metrics()
    assert [set(record.means) for record in records] == [{"loss_class", "class_accuracy"}] * 2
    assert all("hollow" not in record.scores and "combined" in record.scores for record in records)
