"""The mutual-information loss against closed forms, and the pairing against its naive statement."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mutualign.nn.losses import all_pairs_mutual_information, jsd_mutual_information, sample_pairs


def naive_bound(joint, marginal, valid=None):
    """The loss by a loop over pairs, with softplus(x) = ln(1 + e^x) written so that e^x cannot overflow."""

    def softplus(x):
        return max(x, 0.0) + math.log1p(math.exp(-abs(x)))

    kept = [i for i in range(len(joint)) if valid is None or valid[i]]
    if not kept:
        return 0.0
    return sum(softplus(-float(joint[i])) + softplus(float(marginal[i])) for i in kept) / len(kept)


# The loss -------------------------------------------------------------------------------------------------------------


def test_the_loss_is_two_ln_two_for_a_critic_that_knows_nothing():
    for pairs in (1, 7, 64):
        loss = jsd_mutual_information(torch.zeros(pairs), torch.zeros(pairs))
        assert loss.item() == pytest.approx(2 * math.log(2), rel=1e-6)
    same = torch.tensor([[True, False, False]])
    assert all_pairs_mutual_information(torch.zeros(1, 3), same).item() == pytest.approx(2 * math.log(2), rel=1e-6)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.booleans()), min_size=1, max_size=30))
def test_the_loss_is_the_mean_over_valid_pairs_and_over_them_only(rows):
    joint, marginal, valid = zip(*rows, strict=True)
    scores = torch.tensor([joint, marginal], dtype=torch.float64)
    assert float(jsd_mutual_information(*scores)) == pytest.approx(naive_bound(joint, marginal), rel=1e-9)
    loss = jsd_mutual_information(*scores, torch.tensor(valid))
    assert loss.item() == pytest.approx(naive_bound(joint, marginal, valid), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("pairs", "valid"), [(0, None), (0, torch.zeros(0, dtype=torch.bool)), (5, torch.zeros(5, dtype=torch.bool))]
)
def test_no_valid_pair_gives_exactly_zero_with_a_gradient_of_exactly_zero(pairs, valid, dtype):
    joint = torch.full((pairs,), 3.0, dtype=dtype, requires_grad=True)
    marginal = torch.full((pairs,), -2.0, dtype=dtype, requires_grad=True)
    loss = jsd_mutual_information(joint, marginal, valid)
    loss.backward()
    assert loss.item() == 0
    for scores in (joint, marginal):
        assert scores.grad is not None
        assert torch.equal(scores.grad, torch.zeros_like(scores))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("with_mask", [False, True])
def test_extreme_scores_give_their_finite_value_in_every_precision(dtype, with_mask):
    wrong = torch.full((64,), 1e4, dtype=dtype)  # bf16 rounds it to 9984
    valid = torch.ones(64, dtype=torch.bool) if with_mask else None
    joint, marginal = (-wrong).requires_grad_(), wrong.clone().requires_grad_()
    loss = jsd_mutual_information(joint, marginal, valid)
    assert loss.item() == pytest.approx(2 * float(wrong[0]), rel=1e-6)
    loss.backward()
    assert torch.allclose(joint.grad, torch.full_like(joint, -1 / 64), rtol=1e-2)
    assert torch.allclose(marginal.grad, torch.full_like(marginal, 1 / 64), rtol=1e-2)
    assert float(jsd_mutual_information(wrong, -wrong, valid)) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_scores_of_pairs_that_are_not_valid_change_neither_loss_nor_gradient(bad):
    valid = torch.tensor([True, False, True])
    joint, marginal = (torch.tensor([0.3, bad, 1.0], requires_grad=True) for _ in range(2))
    loss = jsd_mutual_information(joint, marginal, valid)
    loss.backward()
    assert loss.item() == pytest.approx(naive_bound([0.3, 1.0], [0.3, 1.0]), rel=1e-6)
    for scores, sign in ((joint, -1), (marginal, 1)):
        expected = torch.sigmoid(sign * torch.tensor([0.3, 0.0, 1.0])) * sign * valid / 2
        assert torch.allclose(scores.grad, expected)

    scores = torch.tensor([[0.3, bad], [bad, -0.2]], requires_grad=True)
    loss = all_pairs_mutual_information(scores, torch.tensor([[True, True], [False, False]]), torch.eye(2).bool())
    loss.backward()
    assert loss.item() == pytest.approx(naive_bound([0.3], [-0.2]), rel=1e-6)
    assert scores.grad.isfinite().all()
    assert scores.grad[0, 1] == scores.grad[1, 0] == 0


JOINT, VALID, LABELS = torch.zeros(4), torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("loss", "arguments", "message"),
    [
        (
            jsd_mutual_information,
            (JOINT[:, None], JOINT[:, None], VALID),
            r"joint has shape \[4, 1\], expected \[pairs\]",
        ),
        (jsd_mutual_information, (JOINT, JOINT[:1]), r"marginal has shape \[1\], expected \[pairs\] with pairs = 4"),
        (jsd_mutual_information, (JOINT, JOINT, VALID[:1]), r"valid has shape \[1\]"),
        (jsd_mutual_information, (JOINT[0], JOINT[0]), r"joint has shape \[\]"),
        (all_pairs_mutual_information, (JOINT, VALID), r"scores has shape \[4\], expected \[a, b\]"),
        (
            all_pairs_mutual_information,
            (JOINT.view(2, 2), VALID.view(1, 4)),
            r"same has shape \[1, 4\], .* a = 2, b = 2",
        ),
        (all_pairs_mutual_information, (JOINT.view(2, 2), VALID.view(2, 2), VALID.view(4, 1)[:2]), "valid has shape"),
        (sample_pairs, (LABELS, LABELS, VALID[:3], 2), r"confident has shape \[3\], expected \[target\]"),
        (sample_pairs, (LABELS[:, None], LABELS, VALID, 2), "source_labels has shape"),
    ],
)
def test_shapes_that_do_not_match_are_refused_before_anything_is_broadcast(loss, arguments, message):
    with pytest.raises(ValueError, match=f"{loss.__name__}: {message}"):
        loss(*arguments)


@pytest.mark.parametrize("valid", [None, torch.tensor([True, False, True, True, False])])
def test_the_gradient_passes_gradcheck(valid):
    torch.manual_seed(0)
    scores = [torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda joint, marginal: jsd_mutual_information(joint, marginal, valid), scores)


# The loss over all pairs ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6), st.booleans())
def test_the_loss_over_all_pairs_is_the_bound_of_its_two_lists_of_pairs(rows, columns, seed, masked):
    rng = torch.Generator().manual_seed(seed)
    scores = 20 * torch.randn(rows, columns, generator=rng, dtype=torch.float64)
    same = torch.rand(rows, columns, generator=rng) < 0.4
    valid = torch.rand(rows, columns, generator=rng) < 0.6 if masked else torch.ones_like(same)
    joint, marginal = scores[same & valid].tolist(), scores[~same & valid].tolist()
    far = [-1e9]  # adds nothing to the other list's mean
    expected = naive_bound(joint, far * len(joint)) + naive_bound([1e9] * len(marginal), marginal)
    found = all_pairs_mutual_information(scores, same, valid if masked else None)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_valid_pair_of_all_gives_exactly_zero_with_a_gradient_of_exactly_zero(dtype):
    scores = torch.full((3, 4), 1e4, dtype=dtype, requires_grad=True)
    loss = all_pairs_mutual_information(scores, torch.eye(3, 4).bool(), torch.zeros(3, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(scores.grad, torch.zeros_like(scores))


# The pairing ----------------------------------------------------------------------------------------------------------


@st.composite
def labelled_batches(draw):
    """Source labels, target labels, confidence, the number of classes: any sizes, any classes missing."""
    classes = draw(st.integers(1, 12))
    label = st.integers(0, classes - 1)
    source = draw(st.lists(label, min_size=1, max_size=24))
    target = draw(st.lists(st.tuples(label, st.booleans()), min_size=1, max_size=24))
    return source, [label for label, _ in target], [confident for _, confident in target], classes


def pairs_of(source, target, confident, classes, seed=0):
    torch.manual_seed(seed)
    return sample_pairs(torch.tensor(source), torch.tensor(target), torch.tensor(confident), classes)


def naive_counts(source, target, confident, classes):
    """The number of pairs of each class, counted by a loop."""
    sure = [label for label, flag in zip(target, confident, strict=True) if flag]
    counts = {}
    for c in range(classes):
        others_s, others_t = sum(x != c for x in source), sum(x != c for x in sure)
        if count := min(source.count(c), sure.count(c), others_t, others_s):
            counts[c] = count
    return counts


@settings(deadline=None, max_examples=120, derandomize=True)
@given(labelled_batches(), st.integers(0, 2**32))
def test_pairing_never_crosses_classes_and_its_counts_are_the_naive_ones(batch, seed):
    source, target, confident, _ = batch
    pairs = pairs_of(*batch, seed)

    slots = min(len(source), len(target))
    assert all(field.shape == (slots,) for field in pairs)
    for rows, size in zip(pairs[:4], (len(source), len(target)) * 2, strict=True):
        assert all(0 <= row < size for row in rows.tolist())

    per_class, drawn = Counter(), Counter()
    for s, t, other_s, other_t, valid in zip(*(field.tolist() for field in pairs), strict=True):
        if not valid:
            continue
        c = source[s]
        assert target[t] == c
        assert source[other_s] != c
        assert target[other_t] != c
        assert confident[t]
        assert confident[other_t]
        per_class[c] += 1
        drawn.update([(c, "source", s), (c, "target", t), (c, "other source", other_s), (c, "other target", other_t)])
    assert per_class == naive_counts(*batch)
    assert all(times == 1 for times in drawn.values())  # within a role no image is drawn twice for a class


@pytest.mark.parametrize(
    ("source", "target", "confident"),
    [
        ([0, 1, 2, 0], [0, 1, 2, 0], [False] * 4),  # no confident target
        ([0, 0, 1, 1], [0, 0, 0, 1], [True, True, True, False]),  # confident in one class only
        ([1, 1, 1], [0, 1, 2], [True] * 3),  # source of one class only
    ],
)
def test_without_confident_images_or_other_classes_there_is_no_pair(source, target, confident):
    assert not pairs_of(source, target, confident, 3).valid.any()


def test_the_same_torch_seed_gives_the_same_pairs_and_another_gives_others():
    batch = ([0, 1] * 8, [1, 0] * 8, [True] * 16, 2)
    first, again, other = pairs_of(*batch, 1), pairs_of(*batch, 1), pairs_of(*batch, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_each_member_of_a_role_and_each_combination_is_drawn_about_equally_often():
    source, target, confident = [0] * 5 + [1] * 4, [0] * 3 + [1] * 2 + [0] * 4, [True] * 5 + [False] * 4
    labels, pseudo, sure = torch.tensor(source), torch.tensor(target), torch.tensor(confident)
    torch.manual_seed(0)
    draws, roles, combinations = 600, [Counter() for _ in range(4)], Counter()
    for _ in range(draws):
        pairs = sample_pairs(labels, pseudo, sure, 2)
        of_zero = pairs.valid & (labels[pairs.source] == 0)  # min(5, 3, 2, 4) = 2 pairs
        rows = [field[of_zero].tolist() for field in pairs[:4]]
        for role, drawn in zip(roles, rows, strict=True):
            role.update(drawn)
        combinations.update(zip(rows[0], rows[1], strict=True))

    def about_equal(counter, members):
        """Each member's count within 5 standard deviations of a binomial with equal chances."""
        n, p = sum(counter.values()), 1 / len(members)
        assert set(counter) == set(members)
        assert all(abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p)) for count in counter.values())

    for role, members in zip(roles, (range(5), range(3), range(5, 9), (3, 4)), strict=True):
        assert sum(role.values()) == 2 * draws
        about_equal(role, members)
    about_equal(combinations, [(s, t) for s in range(5) for t in range(3)])
