"""Label shift: the test and the estimate on classifiers whose errors are known by construction."""

from __future__ import annotations

import pytest
import torch

from mutualign.evaluation.label_shift import estimated_shares, same_within_classes


def classified(shares, n, seed, sure=2.0, move=0.0):
    """Labels with these shares, and logits of a noisy classifier; `move` makes it less sure."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(shares), n, replacement=True, generator=rng)
    logits = (sure - move) * torch.eye(len(shares))[labels] + torch.randn(n, len(shares), generator=rng)
    return logits, labels


def test_frequencies_of_true_classes_are_recovered_from_predictions_with_errors():
    source, labels = classified([0.25] * 4, 20_000, 0)
    shares = [0.7, 0.2, 0.1, 0.0]
    target, _ = classified(shares, 20_000, 1)
    predicted = torch.bincount(target.argmax(1), minlength=4) / len(target)
    assert estimated_shares(source, labels, target) == pytest.approx(shares, abs=0.02)
    assert predicted.tolist() != pytest.approx(shares, abs=0.05)  # the predictions themselves are off


def test_frequencies_are_recovered_from_a_source_with_rare_classes():
    source, labels = classified([0.6, 0.2, 0.15, 0.05], 20_000, 0)
    shares = [0.1, 0.2, 0.3, 0.4]
    assert estimated_shares(source, labels, classified(shares, 20_000, 1)[0]) == pytest.approx(shares, abs=0.03)


def test_a_class_without_held_out_source_images_leaves_the_shares_unknown():
    source, labels = classified([0.5, 0.5, 0.0], 300, 0)
    target, _ = classified([0.3, 0.3, 0.4], 300, 1)
    assert estimated_shares(source, labels, target) is None


def test_the_p_value_is_small_as_often_as_it_may_be_for_equal_domains():
    def p(seed):
        return same_within_classes(classified([0.25] * 4, 400, seed)[0], classified([0.25] * 4, 300, seed + 1)[0])

    assert sum(p(2 * seed) < 0.1 for seed in range(200)) <= 0.15 * 200  # chance allows some more than 0.1


def test_less_sure_predictions_are_no_label_shift_and_rare_classes_are():
    source, _ = classified([0.25] * 4, 1000, 0, sure=6.0)
    assert same_within_classes(source, classified([0.25] * 4, 1000, 1, sure=6.0, move=2.0)[0]) < 1e-6
    assert same_within_classes(source, classified([0.91, 0.03, 0.03, 0.03], 1000, 1, sure=6.0)[0]) > 0.1


def test_too_few_images_say_nothing():
    source, _ = classified([0.5, 0.5], 100, 0)
    assert same_within_classes(source, source[:5]) is None
