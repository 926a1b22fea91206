"""What an epoch's record says of pseudo-labels: the teacher's, whether it or its student is the stage's result."""

from __future__ import annotations

import pytest
import torch

from mutualign.evaluation.measure import Evaluator
from mutualign.methods import METHODS
from mutualign.nn.backbones import ManiCNN
from mutualign.nn.classifier import Classifier
from mutualign.training.callbacks import Epoch
from mutualign.training.distributed import make_fabric
from tests.tiny_task import make_tiny_task


@pytest.mark.parametrize("name", ["mani", "mutual_align"])
def test_pseudo_labels_are_those_of_the_teacher_and_compared_with_its_students(name):
    task = make_tiny_task()
    entry = METHODS[name]
    method = entry.build(Classifier(ManiCNN(*task.shape), len(task.class_names)), entry.config())
    for network, sureness, answer in ((method.teacher.model, 50.0, 1), (method.classifier, 0.1, 0)):
        network.head[-1].weight.data.zero_()
        network.head[-1].bias.data = sureness * torch.eye(3)[answer]
    assert (method.output_model is method.teacher.model) == (name == "mutual_align")
    evaluator = Evaluator(task, 0, make_fabric("float32", "cpu"))
    record, predicted = evaluator.epoch(method, name, Epoch(0, 1, {}, 1.0), None)
    assert set(predicted.tolist()) == {int(name == "mutual_align")}
    assert record.audit.coverage == record.pseudo_labels.coverage == 1
    assert record.audit.pseudo_label_shares[1] == 1
    assert record.audit.teacher_agreement == 0
