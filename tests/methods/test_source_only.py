"""The baseline against its loss written out."""

from __future__ import annotations

import math

import pytest
import torch


def test_the_loss_is_the_mean_negative_log_probability_of_the_labels(build, make_batch):
    method = build("source_only", classes=4).eval()
    batch = make_batch(method, n_source=7)
    losses, metrics = method(batch, torch.tensor(0.0))

    logits = method.classifier(batch.images).double().tolist()
    labels = batch.labels.tolist()
    log_likelihood = sum(
        row[label] - math.log(sum(math.exp(value) for value in row)) for row, label in zip(logits, labels, strict=True)
    )
    right = sum(row.index(max(row)) == label for row, label in zip(logits, labels, strict=True))
    assert list(losses) == ["class"]
    assert losses["class"].item() == pytest.approx(-log_likelihood / 7, rel=1e-6)
    assert metrics["class_accuracy"].item() == pytest.approx(right / 7)
    assert not method.uses_target
