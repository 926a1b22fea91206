"""The bound by disagreement discrepancy: its loss by a loop, its gradient, and its coverage by simulation."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.evaluation.discrepancy import bound_accuracy, search_critics
from mutualign.evaluation.estimators import EstimatorInputs


def domain(n, move, seed, classes=4, width=4):
    """Features of Gaussian classes, moved by `move`, and their labels."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=rng)
    return 3 * torch.eye(classes, width)[labels] + torch.randn(n, width, generator=rng) + move, labels


def inputs(move, seed, n=400):
    """Outputs of the nearest-mean classifier of the source, and its true target accuracy."""
    (source, labels), (target, truth) = domain(n, torch.zeros(4), 2 * seed), domain(n, move, 2 * seed + 1)
    found = EstimatorInputs(3 * source, labels, 3 * target)
    return found, float((found.predicted == truth).double().mean())


def objective(critic, source, target):
    """The critic's loss by a loop over images, from the paper: section 4."""
    classes, total = source.shape[1], 0.0
    for logits, part in ((source, "agree"), (target, "disagree")):
        both = torch.cat([source, target]).double()
        scaled = torch.cat([(logits.double() - both.mean(0)) / both.std(correction=0), torch.ones(len(logits), 1)], 1)
        scores = (scaled @ torch.from_numpy(critic._weights)).tolist()
        losses = []
        for row, own in zip(scores, logits.argmax(1).tolist(), strict=True):
            others = sum(row[label] for label in range(classes) if label != own) / (classes - 1)
            agreement = -math.log(math.exp(row[own]) / sum(math.exp(one) for one in row))
            losses.append(agreement if part == "agree" else math.log(1 + math.exp(row[own] - others)))
        total += sum(losses) / len(losses)
    return total + 1e-4 * float((critic._weights**2).sum())


def test_the_last_critic_minimises_the_loss_of_the_paper():
    found, _ = inputs(torch.tensor([2.0, 0.0, 0.0, 0.0]), 0, n=60)
    *_, critic = search_critics(found.source_logits, found.target_logits)
    best = objective(critic, found.source_logits, found.target_logits)
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = 0.1 * torch.randn(critic._weights.shape, generator=rng).double().numpy()
        critic._weights += step
        assert objective(critic, found.source_logits, found.target_logits) > best
        critic._weights -= step


def test_the_first_critic_is_the_classifier_itself():
    found, _ = inputs(torch.tensor([2.0, 0.0, 0.0, 0.0]), 0, n=60)
    first, *_ = search_critics(found.source_logits - 7, found.target_logits - 7)
    assert torch.equal(first(found.target_logits - 7), found.target_logits.argmax(1))


def test_the_bound_holds_for_two_or_three_source_images_of_each_class():
    """The last critic disagrees with the classifier on the source too: its bound holds for four of these ten."""
    classes, held = 31, []
    for seed in range(10):
        source, labels = domain(77, 0.0, 2 * seed, classes, classes)
        target, truth = domain(400, 1.0, 2 * seed + 1, classes, classes)
        target += torch.randn(target.shape, generator=torch.Generator().manual_seed(seed))  # a noisier camera
        found = EstimatorInputs(3 * source, labels, 3 * target)
        held.append(bound_accuracy(found) <= float((found.predicted == truth).double().mean()))
    assert sum(held) >= 9


@pytest.mark.parametrize("move", [0.0, 1.0, 2.0, 4.0])
def test_the_bound_holds_if_the_shift_moves_images_across_the_classifiers_boundaries(move):
    held = []
    for seed in range(20):
        found, accuracy = inputs(torch.tensor([move, 0.0, 0.0, -move / 2]), seed)
        held.append(bound_accuracy(found) <= accuracy)
    assert sum(held) >= 19


def test_without_a_shift_the_bound_is_near_the_accuracy_and_a_shift_lowers_it():
    bounds = [bound_accuracy(inputs(torch.tensor([move, 0.0, 0.0, 0.0]), 3, n=4000)[0]) for move in (0.0, 1.5, 4.0)]
    assert bounds[0] > 0.9
    assert bounds[0] > bounds[1] + 0.05 > bounds[2] + 0.1


def test_an_error_that_the_logits_do_not_show_is_invisible():
    """The known limit of the bound, as its docstring says: half of the target images have another class."""
    found, _ = inputs(torch.zeros(4), 0, n=2000)
    truth = found.predicted.clone()
    truth[::2] = (truth[::2] + 1) % 4
    assert bound_accuracy(found) > 0.8 > float((found.predicted == truth).double().mean())


def test_neither_the_order_of_the_classes_nor_a_shift_of_all_logits_matters():
    found, _ = inputs(torch.tensor([1.0, 0.0, 0.0, 0.0]), 1)
    order = torch.tensor([2, 0, 3, 1])
    renamed = EstimatorInputs(
        found.source_logits[:, order.argsort()] + 5,
        order[found.source_labels],
        found.target_logits[:, order.argsort()] + 5,
    )
    assert bound_accuracy(renamed) == pytest.approx(bound_accuracy(found), abs=0.02)


@pytest.mark.parametrize(("n", "classes"), [(1, 3), (2, 2), (3, 1)])
@pytest.mark.parametrize("value", [0.0, 1e4])
def test_the_bound_of_few_images_or_extreme_logits_is_between_zero_and_one(n, classes, value):
    logits = torch.full((n, classes), value)
    assert 0 <= bound_accuracy(EstimatorInputs(logits, torch.zeros(n).long(), logits)) <= 1
