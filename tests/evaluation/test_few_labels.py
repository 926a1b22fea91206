"""A few labels: the parts of a plan, and the coverage of the intervals by simulation."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from mutualign.evaluation.binomial import lower_limit, upper_limit
from mutualign.evaluation.few_labels import labelled_accuracy, labelled_gain, plan_labelling


def random_logits(n=500, classes=4, seed=0):
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (1, 1000)])
def test_binomial_limits_are_those_of_scipy(count, total):
    expected = stats.binomtest(count, total).proportion_ci(0.95, method="exact")
    assert lower_limit(count, total, 0.025) == pytest.approx(expected.low)
    assert upper_limit(count, total, 0.025) == pytest.approx(expected.high)


def test_parts_do_not_overlap_and_differing_images_differ():
    logits, other = random_logits(), random_logits(seed=1).argmax(1)
    plan = plan_labelling(logits, other, 50, "key")
    rows = torch.cat([plan.random, plan.differing, plan.unsure])
    assert (len(plan.random), len(plan.differing), len(plan.unsure)) == (30, 20, 0)
    assert len(rows.unique()) == 50
    assert (logits.argmax(1) != other)[plan.differing].all()


def test_the_random_part_depends_on_the_images_alone():
    one, other = (plan_labelling(random_logits(seed=seed), None, 50, "key").random for seed in (0, 1))
    assert one.equal(other)
    assert not one.equal(plan_labelling(random_logits(), None, 50, "other images").random)


def test_without_a_baseline_the_least_sure_images_are_chosen():
    logits = random_logits()
    plan = plan_labelling(logits, None, 50, "key")
    top = logits.softmax(1).topk(2, dim=1).values
    margin = top[:, 0] - top[:, 1]
    rest = torch.ones(500, dtype=torch.bool)
    rest[plan.random] = rest[plan.unsure] = False
    assert len(plan.unsure) == 20
    assert margin[plan.unsure].max() <= margin[rest].min()


def test_few_images_are_all_labelled_at_random():
    plan = plan_labelling(random_logits(8), None, 50, "key")
    assert sorted(plan.random.tolist()) == list(range(8))


@pytest.mark.parametrize("accuracy", [0.1, 0.5, 0.97])
def test_the_interval_of_the_accuracy_holds_in_95_percent(accuracy):
    """Images of a target set of 300 are drawn by the plan, with another key each time."""
    n, trials, held = 300, 400, 0
    labels = torch.zeros(n, dtype=torch.int64)
    right = torch.rand(n, generator=torch.Generator().manual_seed(1)) < accuracy
    predicted, true = torch.where(right, 0, 1), float(right.double().mean())
    for trial in range(trials):
        rows = plan_labelling(random_logits(n), None, 50, str(trial)).random
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
        plan = plan_labelling(torch.eye(5)[ours], theirs, 50, str(trial))
        rows = torch.cat([plan.differing, plan.random[apart[plan.random]]])
        found = labelled_gain(float(apart.double().mean()), ours[rows], theirs[rows], labels[rows])
        held += found.low <= true <= found.high
        widths.append(found.high - found.low)
    assert held / trials >= 0.95
    assert max(widths) < 2 * float(apart.double().mean())


def test_no_labelled_image_says_only_that_the_gain_is_no_larger_than_the_disagreement():
    none = torch.empty(0, dtype=torch.int64)
    found = labelled_gain(0.2, none, none, none)
    assert (found.value, found.low, found.high) == (0, -0.2, 0.2)
