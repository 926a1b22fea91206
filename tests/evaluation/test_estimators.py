"""Estimates without target labels: against loops, known values, and models whose accuracy is known by construction."""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations, pairwise
from statistics import NormalDist, linear_regression

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mutualign.evaluation.estimators import ESTIMATORS, RunOutputs, estimates, register_estimator
from mutualign.evaluation.estimators.agreement import best_recipe, mean_agreement
from mutualign.evaluation.estimators.base import sampling_error


def estimate(name, run, runs=()):
    return ESTIMATORS[name](run, runs or [run])


def outputs_of(source_logits, source_labels, target_logits, recipe="r", seed=0, score=0.0):
    return RunOutputs(source_logits, source_labels, target_logits, recipe, seed, score)


def random_run(seed=0, source=53, target=47, classes=4, **about):
    rng = torch.Generator().manual_seed(seed)
    return outputs_of(
        3 * torch.randn(source, classes, generator=rng),
        torch.randint(classes, (source,), generator=rng),
        3 * torch.randn(target, classes, generator=rng),
        **about,
    )


def predicting(predicted, recipe="r", seed=0, score=0.0, classes=10):
    """A run that puts the target images into these classes."""
    logits = 5 * F.one_hot(torch.as_tensor(predicted), classes).float()
    return outputs_of(5 * torch.eye(classes), torch.arange(classes), logits, recipe, seed, score)


def wrong_in(truth, share, seed, classes=10):
    """Predictions with about a share of independent errors."""
    rng = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(truth), generator=rng) < share
    other = (truth + torch.randint(1, classes, truth.shape, generator=rng)) % classes
    return torch.where(wrong, other, truth)


# One run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_of_atc_leaves_out_as_many_source_images_as_are_wrong(seed):
    """Eq. 2 and 3 by trial of every threshold between two confidences."""
    run = random_run(seed)

    def confidence(logits):
        p = logits.double().softmax(1)
        return (p * p.log()).sum(1).tolist()

    source, target = confidence(run.source_logits), confidence(run.target_logits)
    wrong = round((1 - run.source_accuracy) * len(source))
    ordered = sorted(source)
    between = [(a + b) / 2 for a, b in pairwise(ordered)]
    (threshold,) = [t for t in between if sum(value < t for value in source) == wrong]
    low, high = ordered[wrong - 1], ordered[wrong]
    assert not any(low < value < high for value in target)  # so that any threshold between the two gives the same
    expected = sum(value >= threshold for value in target) / len(target)
    assert estimate("average_thresholded_confidence", run).accuracy == pytest.approx(expected)


def test_atc_of_the_source_itself_is_its_accuracy():
    run = random_run(source=200)
    found = estimate("average_thresholded_confidence", dataclasses.replace(run, target_logits=run.source_logits))
    assert found.accuracy == pytest.approx(run.source_accuracy)


def test_atc_of_a_network_that_is_equally_sure_of_all_images_is_its_source_accuracy():
    source, target = torch.eye(4)[torch.arange(40) % 4], torch.eye(4)[[0, 1, 2]]
    labels = torch.where(torch.arange(40) < 10, torch.arange(40) % 4, (torch.arange(40) + 1) % 4)  # a quarter is right
    assert estimate("average_thresholded_confidence", outputs_of(source, labels, target)).accuracy == 0.25


def test_atc_is_one_for_a_surer_target_of_a_perfect_source_and_zero_if_the_source_is_all_wrong():
    sure, unsure, right = 9 * torch.eye(3), 2 * torch.eye(3), torch.arange(3)
    for source, labels, target, expected in (
        (unsure, right, sure, 1),
        (sure, right, unsure, 0),
        (sure, right[[1, 2, 0]], sure, 0),
    ):
        assert estimate("average_thresholded_confidence", outputs_of(source, labels, target)).accuracy == expected


def test_doc_subtracts_the_fall_of_confidence():
    def of(confidence, n):  # two classes, class 0 with this probability
        return torch.tensor([[math.log(confidence / (1 - confidence)), 0.0]] * n)

    labels = torch.tensor([0] * 9 + [1])  # 90 % right
    found = [
        estimate("difference_of_confidences", outputs_of(of(a, 10), labels, of(b, 20)))
        for a, b in ((0.95, 0.75), (0.6, 0.9))
    ]
    assert found[0].accuracy == pytest.approx(0.9 - (0.95 - 0.75))
    assert found[1].accuracy == 1.0  # 1.2, cut off


# Several runs ---------------------------------------------------------------------------------------------------------


def test_disagreement_is_the_mean_over_pairs_of_different_seeds():
    a, b, c = (predicting(p, seed=s) for s, p in enumerate(([0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 5, 5])))
    assert estimate("disagreement", a, [a, b, c]).accuracy == pytest.approx((3 / 4 + 2 / 4 + 2 / 4) / 3)
    assert estimate("disagreement", a, [a, dataclasses.replace(b, seed=0)]) is None  # a single seed
    assert estimate("disagreement", a) is None


def test_consensus_uses_the_other_seeds_of_the_recipe_with_the_best_score():
    good = [predicting([0, 1, 2, 3], "good", seed, score=2.0) for seed in (0, 1)]
    odd = predicting([9, 9, 9, 9], "odd", 1, score=1.0)
    poor = predicting([0, 1, 7, 7], "poor", 1, score=0.5)
    assert best_recipe([poor, odd, *good]) == "good"
    assert estimate("consensus", poor, [poor, odd, *good]).accuracy == 0.5
    other = [good[0], predicting([0, 0, 0, 0], "good", 1, score=2.0)]
    assert estimate("consensus", poor, [poor, *other]).accuracy == 0.5  # the reference with its own seed is left out
    assert estimate("consensus", good[0], good).accuracy == estimate("disagreement", good[0], good).accuracy == 1
    assert estimate("consensus", poor, [poor, good[0]]) is None


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 1), st.floats(0, 0.3), st.integers(0, 1000))
def test_the_range_of_the_consensus_holds_the_truth_if_errors_are_independent(own, others, seed):
    truth = torch.randint(10, (4000,), generator=torch.Generator().manual_seed(seed))
    run = predicting(wrong_in(truth, own, seed + 1), "own", 0)
    peers = [predicting(wrong_in(truth, others, seed + 2 + i), "best", i, score=1.0) for i in range(3)]
    found = estimate("consensus", run, [run, *peers])
    accuracy = float((run.predicted == truth).double().mean())
    assert found.low <= accuracy <= found.high


def test_an_error_that_all_seeds_share_is_invisible():
    """The known limit of the estimate, as its docstring says."""
    truth = torch.arange(1000) % 10
    runs = [predicting(torch.where(truth == 3, 5, truth), seed=seed) for seed in range(3)]
    assert estimate("consensus", runs[0], runs).accuracy == 1.0


# Agreement on the line ------------------------------------------------------------------------------------------------


def on_a_line(errors, shift, n=1000):
    """Runs with errors of their own: a random share of each domain's images, more in the target."""
    labels, runs = torch.arange(n) % 10, []
    for seed, error in enumerate(errors):
        source = wrong_in(labels, error, 2 * seed)
        target = wrong_in(labels, error + shift, 2 * seed + 1)
        one_hot = [5 * F.one_hot(predicted, 10).float() for predicted in (source, target)]
        runs.append(outputs_of(one_hot[0], labels, one_hot[1], seed=seed))
    return runs


def naive_line(runs):
    """Agreements and accuracies in probits, by pairs; the slope and bias of the line."""
    probit = NormalDist().inv_cdf
    rows = []
    for (i, a), (j, b) in combinations(enumerate(runs), 2):
        source = float((a.source_logits.argmax(1) == b.source_logits.argmax(1)).float().mean())
        target = float((a.predicted == b.predicted).float().mean())
        if max(source, target) <= 0.98 and min(source, target) >= 0.05:
            rows.append((i, j, probit(source), probit(target)))
    line = linear_regression([row[2] for row in rows], [row[3] for row in rows])
    return rows, [probit(run.source_accuracy) for run in runs], line.slope, line.intercept


def test_aline_s_reads_the_accuracy_off_the_line_of_the_agreements():
    runs = on_a_line((0.05, 0.1, 0.2, 0.3), 0.2)
    _, accuracies, slope, bias = naive_line(runs)
    for run, accuracy in zip(runs, accuracies, strict=True):
        expected = NormalDist().cdf(slope * accuracy + bias)
        assert estimate("aline_s", run, runs).accuracy == pytest.approx(expected, abs=1e-6)


def test_aline_d_solves_the_equations_of_all_pairs_by_least_squares():
    runs = on_a_line((0.05, 0.1, 0.2, 0.3), 0.2)
    rows, accuracies, slope, _ = naive_line(runs)
    system = torch.zeros(len(rows), 4, dtype=torch.float64)
    right = []
    for row, (i, j, source, target) in enumerate(rows):
        system[row, i] = system[row, j] = 0.5
        right.append(target + slope * ((accuracies[i] + accuracies[j]) / 2 - source))
    solution = torch.linalg.lstsq(system, torch.tensor(right, dtype=torch.float64)[:, None]).solution.flatten()
    for run, probit in zip(runs, solution.tolist(), strict=True):
        assert estimate("aline_d", run, runs).accuracy == pytest.approx(NormalDist().cdf(probit), abs=1e-6)


def test_the_line_is_right_where_accuracy_lies_on_it_and_source_and_target_are_alike():
    runs = on_a_line((0.05, 0.15, 0.25, 0.35, 0.45), 0.0, n=20_000)
    truth = torch.arange(20_000) % 10
    for run in runs:
        accuracy = float((run.predicted == truth).double().mean())
        for name in ("aline_s", "aline_d"):
            assert estimate(name, run, runs).accuracy == pytest.approx(accuracy, abs=0.02)


def test_too_few_runs_or_runs_that_agree_determine_no_line():
    three = on_a_line((0.1, 0.2, 0.3), 0.1)
    assert estimate("aline_d", three[0], three) is not None
    assert estimate("aline_s", three[0], three[:2]) is None  # a single pair
    same = [dataclasses.replace(three[0], seed=seed) for seed in range(3)]
    assert estimate("aline_s", same[0], same) is None  # agreements of 1
    logits = three[0].source_logits.clone()
    logits[:10] = three[0].source_logits[1:11]
    twin = dataclasses.replace(three[0], source_logits=logits)
    path = [three[0], three[1], twin]  # the twins agree on 99 %: two pairs for three runs
    assert estimate("aline_s", path[1], path) is not None
    assert estimate("aline_d", path[1], path) is None


# All estimators -------------------------------------------------------------------------------------------------------


def test_neither_the_order_of_images_nor_the_numbers_of_classes_matter():
    runs = [random_run(seed, recipe=f"r{seed // 2}", score=float(seed)) for seed in range(4)]
    runs = [dataclasses.replace(run, seed=number % 2) for number, run in enumerate(runs)]
    classes, images = torch.tensor([2, 0, 3, 1]), torch.randperm(47, generator=torch.Generator().manual_seed(9))

    def renamed(run):
        source, target = (logits[:, classes.argsort()] for logits in (run.source_logits, run.target_logits))
        labels = classes[run.source_labels]
        return dataclasses.replace(run, source_logits=source, source_labels=labels, target_logits=target[images])

    new = [renamed(run) for run in runs]
    for old, run in zip(runs, new, strict=True):
        for name, expected in estimates(old, runs).items():
            assert estimates(run, new)[name] == pytest.approx(expected), name


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
@pytest.mark.parametrize(("n", "classes"), [(1, 3), (3, 3), (5, 1)])
def test_estimates_are_finite_and_between_zero_and_one_on_extreme_logits(value, n, classes):
    logits = torch.zeros(n, classes)
    logits[:, 0] = value
    runs = [outputs_of(logits, torch.zeros(n).long(), logits, seed=seed) for seed in (0, 1)]
    for name, found in estimates(runs[0], runs).items():
        if found is None:
            assert name in ("aline_s", "aline_d")  # runs that agree on everything
            continue
        assert 0 <= found.low <= found.accuracy <= found.high <= 1
        assert classes > 1 or found.accuracy == 1  # a single class is always right


def test_more_images_narrow_the_range():
    few, many = (estimate("average_thresholded_confidence", random_run(source=n, target=n)) for n in (50, 5000))
    assert many.high - many.low < 0.2 * (few.high - few.low)


def test_the_range_of_a_share_is_that_of_agresti_and_coull():
    """30 of 40: (30 + 2) / (40 + 4) plus or minus 1.96 standard errors, here around the share itself."""
    error = math.sqrt(32 / 44 * 12 / 44 / 44)
    assert sampling_error(0.75, 40) == pytest.approx(NormalDist().inv_cdf(0.975) * error, rel=1e-3)


def test_the_range_of_the_mean_agreement_has_the_spread_over_pairs_too():
    classes, agreed = ([0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]), [0.75, 0.5, 0.75]
    runs = [predicting(predicted, seed=seed) for seed, predicted in enumerate(classes)]
    found, centre = mean_agreement(runs), sum(agreed) / 3
    spread = 1.96 * (sum((one - centre) ** 2 for one in agreed) / 3 / 3) ** 0.5
    assert found.accuracy == pytest.approx(centre)
    assert found.high == pytest.approx(min(centre + sampling_error(centre, 4) + spread, 1))
    assert found.low == pytest.approx(max(centre - sampling_error(centre, 4) - spread, 0))


def test_a_registered_estimator_joins_the_others_as_the_least_trusted():
    register_estimator("none")(lambda run, runs: None)
    try:
        names = list(estimates(random_run(), [random_run()]))
        assert (names[0], names[-1]) == ("consensus", "none")
    finally:
        del ESTIMATORS["none"]
