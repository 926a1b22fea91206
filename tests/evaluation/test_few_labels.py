"""A few labels: the parts of a plan, and the coverage of the intervals by simulation."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from mutualign.evaluation.binomial import lower_limit, upper_limit
from mutualign.evaluation.few_labels import labelled_accuracy, labelled_gain, plan_labelling


def random_classes(n=500, classes=4, seed=0):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (1, 1000)])
def test_binomial_limits_are_those_of_scipy(count, total):
    expected = stats.binomtest(count, total).proportion_ci(0.95, method="exact")
    assert lower_limit(count, total, 0.025) == pytest.approx(expected.low)
    assert upper_limit(count, total, 0.025) == pytest.approx(expected.high)


def test_parts_do_not_overlap_and_differing_images_differ():
    ours, other = random_classes(), random_classes(seed=1)
    plan = plan_labelling(ours, other, 50, "key")
    rows = torch.cat([plan.random, plan.differing])
    assert (len(plan.random), len(plan.differing)) == (30, 20)
    assert len(rows.unique()) == 50
    assert (ours != other)[plan.differing].all()


def test_the_random_part_depends_on_the_images_alone():
    one, other = (plan_labelling(random_classes(seed=seed), None, 50, "key").random for seed in (0, 1))
    assert one.equal(other)
    assert not one.equal(plan_labelling(random_classes(), None, 50, "other images").random)
    assert one[:30].equal(plan_labelling(random_classes(), random_classes(seed=1), 50, "key").random)


def test_without_a_baseline_all_images_are_drawn_at_random_and_none_is_wasted():
    plan = plan_labelling(random_classes(), None, 50, "key")
    assert (len(plan.random), len(plan.differing)) == (50, 0)


def test_where_few_images_differ_the_labels_that_are_left_are_drawn_at_random():
    ours = random_classes()
    other = torch.where(torch.arange(500) < 5, (ours + 1) % 4, ours)
    plan = plan_labelling(ours, other, 50, "key")
    assert len(plan.random) == 45  # as many whichever are drawn: otherwise the interval would not be exact
    assert sorted(plan.differing.tolist()) == sorted(set(range(5)) - set(plan.random.tolist()))


def test_few_images_are_all_labelled_at_random():
    plan = plan_labelling(random_classes(8), None, 50, "key")
    assert sorted(plan.random.tolist()) == list(range(8))


@pytest.mark.parametrize("accuracy", [0.1, 0.5, 0.97])
def test_the_interval_of_the_accuracy_holds_in_95_percent(accuracy):
    """Images of a target set of 300 are drawn by the plan, with another key each time."""
    n, trials, held = 300, 400, 0
    labels = torch.zeros(n, dtype=torch.int64)
    right = torch.rand(n, generator=torch.Generator().manual_seed(1)) < accuracy
    predicted, true = torch.where(right, 0, 1), float(right.double().mean())
    for trial in range(trials):
        rows = plan_labelling(random_classes(n), None, 50, str(trial)).random
        found = labelled_accuracy(predicted[rows], labels[rows])
        held += found.low <= true <= found.high
    assert held / trials >= 0.95


def test_the_interval_of_the_gain_holds_in_95_percent_and_is_narrow_where_few_images_differ():
    n, trials, held, widths = 600, 400, 0, []
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (n,), generator=rng)
    ours, theirs = (torch.where(torch.rand(n, generator=rng) < share, labels, 4 - labels) for share in (0.85, 0.8))
    true = float((ours == labels).double().mean() - (theirs == labels).double().mean())
    apart = ours != theirs
    for trial in range(trials):
        plan = plan_labelling(ours, theirs, 50, str(trial))
        rows = torch.cat([plan.differing, plan.random[apart[plan.random]]])
        found = labelled_gain(float(apart.double().mean()), ours[rows], theirs[rows], labels[rows])
        held += found.low <= true <= found.high
        widths.append(found.high - found.low)
    assert held / trials >= 0.95
    assert max(widths) < 2 * float(apart.double().mean())


def test_the_gain_has_the_exact_limits_of_both_counts_times_the_share_that_differs():
    rows = torch.arange(20)
    labels, ours, theirs = torch.zeros_like(rows), (rows >= 12).long(), 2 * (rows < 15)
    (won_low, won_high), (lost_low, lost_high) = (
        stats.binomtest(right, 20).proportion_ci(1 - 2 * 0.0125, method="exact") for right in (12, 5)
    )
    found = labelled_gain(0.3, ours, theirs, labels)
    assert found.value == pytest.approx(0.3 * 7 / 20)
    assert found.low == pytest.approx(0.3 * (won_low - lost_high))
    assert found.high == pytest.approx(0.3 * (won_high - lost_low))


def test_no_labelled_image_says_only_that_the_gain_is_no_larger_than_the_disagreement():
    none = torch.empty(0, dtype=torch.int64)
    found = labelled_gain(0.2, none, none, none)
    assert (found.value, found.low, found.high) == (0, -0.2, 0.2)
