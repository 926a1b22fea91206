"""Accuracies and pseudo-label quality, counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.evaluation.records import PseudoLabelQuality
from mutualign.evaluation.target_labels import pseudo_label_quality, review, source_accuracy, target_accuracy


def images(n):
    return UnlabelledImages(torch.zeros(n, 2, 2, 1, dtype=torch.uint8))


def as_target(labels):
    return TargetDataset(images(len(labels)), torch.tensor(labels))


def of_two_classes(*chances):
    """Logits of two classes with these probabilities of class 1."""
    return torch.tensor([[0.0, math.log(p / (1 - p))] for p in chances])


def test_accuracy_is_the_share_of_images_whose_largest_logit_is_the_labels():
    logits = torch.tensor([[0.1, 0.2, -5.0], [9.0, 1.0, 1.0], [0.0, 0.0, 1e-3], [-1.0, -2.0, -3.0]])
    labels = [1, 0, 1, 2]  # right, right, wrong, wrong
    assert source_accuracy(logits, LabelledImages(images(4), torch.tensor(labels))) == 0.5
    assert target_accuracy(logits, as_target(labels)) == 0.5
    assert target_accuracy(logits, TargetDataset(images(4), None)) is None


def test_a_label_beyond_the_classes_is_refused():
    for labels in ([0, 2], [0, -1]):
        with pytest.raises(MutualignError, match=f"class number {labels[1]}; there are 2 classes, 0 to 1"):
            target_accuracy(torch.zeros(2, 2), as_target(labels))


def test_pseudo_labels_are_counted_from_the_threshold_on():
    logits = of_two_classes(0.95, 0.97, 0.02, 0.6, 0.3)
    truth = as_target([1, 0, 0, 1, 0])  # of the confident first three, the first and the third are right
    quality = pseudo_label_quality(logits, truth, torch.arange(5), 0.9)
    assert (quality.coverage, quality.precision) == pytest.approx((3 / 5, 2 / 3))
    even, truth = torch.zeros(2, 4), as_target([0, 0])
    assert pseudo_label_quality(even, truth, torch.arange(2), 0.25) == PseudoLabelQuality(1.0, 1.0)
    assert pseudo_label_quality(even, truth, torch.arange(2), 0.26) == PseudoLabelQuality(0.0, 0.0)  # and not NaN
    unknown = TargetDataset(images(2), None)
    assert pseudo_label_quality(even, unknown, torch.arange(2), 0.25) == PseudoLabelQuality(1.0, None)


def test_rows_are_the_images_that_the_logits_belong_to():
    truth = as_target([0, 1, 0, 1, 0, 1])
    logits = of_two_classes(0.99, 0.99)
    for rows, precision in (([1, 5], 1.0), ([0, 2], 0.0), ([4, 3], 0.5)):
        assert pseudo_label_quality(logits, truth, torch.tensor(rows), 0.9).precision == precision


def test_a_review_counts_confusions_and_reliability_and_finds_images_to_look_at():
    chances = (0.95, 0.55, 0.2, 0.99, 0.58, 0.92)  # of class 1; tops 0.95, 0.55, 0.8, 0.99, 0.58, 0.92
    truth = [1, 0, 0, 1, 1, 0]  # right, wrong, right, right, right, wrong
    everything = as_target([1, *truth])
    found = review(of_two_classes(*chances), everything, torch.arange(1, 7), gallery=2)
    assert found["labels"].tolist() == truth
    assert found["confusion"].tolist() == [[1, 2], [0, 3]]
    counts, confidence, right = found["reliability"].T
    assert counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 1, 3]
    assert confidence[9] == pytest.approx((0.95 + 0.99 + 0.92) / 3, abs=1e-6)
    assert right.tolist() == pytest.approx([0, 0, 0, 0, 0, 0.5, 0, 0, 1, 2 / 3])
    assert found["confident_right"].tolist() == [3, 0]
    assert found["confident_wrong"].tolist() == [5, 1]
    assert found["least_confident"].tolist() == [1, 4]
    all_right = review(of_two_classes(0.9, 0.1), as_target([1, 0]), torch.arange(2), gallery=5)
    assert len(all_right["confident_wrong"]) == 0
