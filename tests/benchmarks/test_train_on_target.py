"""The upper bound: a task whose source is its own target, with labels."""

from __future__ import annotations

import torch
import train_on_target

from mutualign.data.datasets import TASKS
from tests.tiny_task import make_tiny_task

ADDED = TASKS.pop("mnistm-mnistm")  # other tests look at all tasks


def test_source_and_target_are_the_source_of_the_reverse_task_with_and_without_labels(monkeypatch, tmp_path):
    reverse = make_tiny_task()
    monkeypatch.setattr(train_on_target, "load_reverse", lambda folder: reverse)
    task = ADDED.load(tmp_path)
    assert (task.source_train, task.source_test) == (reverse.source_train, reverse.source_test)
    for source, target in ((task.source_train, task.target_train), (task.source_test, task.target_test)):
        assert source.images is target.images
        assert torch.equal(source.labels, target.reveal_labels())
    assert task.name != reverse.name
    assert task.identity != reverse.identity
