"""Accuracies and pseudo-label quality, counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.evaluation.target_labels import (
    PseudoLabelQuality,
    pseudo_label_quality,
    review,
    source_accuracy,
    target_accuracy,
)


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


@pytest.mark.parametrize(("labels", "expected"), [([2] * 5, 1.0), ([0] * 5, 0.0), ([2, 2, 2, 0, 1], 0.6)])
def test_a_collapsed_classifier_is_as_right_as_its_class_is_frequent(labels, expected):
    logits = torch.tensor([[0.0, 0.0, 1.0]] * 5)
    assert target_accuracy(logits, as_target(labels)) == pytest.approx(expected)


def test_accuracy_of_many_images_is_that_of_a_loop():
    torch.manual_seed(0)
    logits, labels = torch.randn(300, 7), torch.randint(7, (300,)).tolist()
    right = sum(row.index(max(row)) == label for row, label in zip(logits.tolist(), labels, strict=True))
    assert target_accuracy(logits, as_target(labels)) == pytest.approx(right / 300, rel=1e-12)


def test_pseudo_labels_are_counted_where_the_top_probability_reaches_the_threshold():
    logits = of_two_classes(0.95, 0.97, 0.02, 0.6, 0.3)
    truth = as_target([1, 0, 0, 1, 0])  # of the confident first three, the first and the third are right
    quality = pseudo_label_quality(logits, truth, torch.arange(5), 0.9)
    assert quality == PseudoLabelQuality(coverage=pytest.approx(3 / 5), precision=pytest.approx(2 / 3))


def test_the_threshold_is_inclusive():
    truth = as_target([0, 0])
    assert pseudo_label_quality(torch.zeros(2, 4), truth, torch.arange(2), 0.25) == (1.0, 1.0)
    assert pseudo_label_quality(torch.zeros(2, 4), truth, torch.arange(2), 0.26) == (0.0, 0.0)


def test_with_no_confident_image_coverage_and_precision_are_zero_not_nan():
    assert pseudo_label_quality(of_two_classes(0.5, 0.6), as_target([1, 1]), torch.arange(2), 0.9) == (0.0, 0.0)


def test_rows_say_which_images_the_logits_are_of():
    truth = as_target([0, 1, 0, 1, 0, 1])
    logits = of_two_classes(0.99, 0.99)
    assert pseudo_label_quality(logits, truth, torch.tensor([1, 5]), 0.9) == (1.0, 1.0)
    assert pseudo_label_quality(logits, truth, torch.tensor([0, 2]), 0.9) == (1.0, 0.0)
    assert pseudo_label_quality(logits, truth, torch.tensor([4, 3]), 0.9) == (1.0, 0.5)


def test_a_review_counts_confusions_and_reliability_and_finds_what_to_look_at():
    chances = (0.95, 0.55, 0.2, 0.99, 0.58, 0.92)  # of class 1; tops 0.95, 0.55, 0.8, 0.99, 0.58, 0.92
    truth = [1, 0, 0, 1, 1, 0]  # right, wrong, right, right, right, wrong
    everything = as_target([9, *truth])
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


def test_a_review_of_predictions_that_are_all_right_has_no_wrong_ones():
    found = review(of_two_classes(0.9, 0.1), as_target([1, 0]), torch.arange(2), gallery=5)
    assert len(found["confident_wrong"]) == 0
    assert found["confusion"].tolist() == [[1, 0], [0, 1]]
