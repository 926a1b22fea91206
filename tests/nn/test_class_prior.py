"""The prior over classes, against its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutualign.nn.class_prior import EstimatedPrior, plausible_shares


def total_variation(one, other):
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2


@given(st.integers(0, 99), st.integers(1, 40), st.integers(2, 6), st.floats(0, 20), st.floats(0, 1))
def test_the_result_is_as_far_from_the_predicted_frequencies_as_errors_allow(seed, n, classes, scale, errors):
    """On the straight line to uniform frequencies, which are reached if the errors allow, and never 0."""
    rows = (scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))).softmax(1)
    counts = [0.5] * classes
    for row in rows.tolist():
        best = [label for label, value in enumerate(row) if value == max(row)]
        for label in best:
            counts[label] += 1 / len(best)
    predicted, uniform = [count / (n + classes / 2) for count in counts], [1 / classes] * classes
    apart = total_variation(predicted, uniform)
    moved = 1.0 if apart <= errors else errors / apart
    found = plausible_shares(rows, torch.tensor(errors))
    assert found.tolist() == pytest.approx([(1 - moved) * c + moved / classes for c in predicted], abs=1e-5)
    assert total_variation(found.tolist(), predicted) == pytest.approx(min(errors, apart), abs=1e-5)
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert found.min() > 0


def test_unsure_predictions_leave_the_prior_uniform_and_certain_ones_make_it_theirs():
    prior = EstimatedPrior(4)
    assert prior.shares.tolist() == [0.25] * 4
    prior.update(torch.full((10, 4), 0.25))
    assert prior.shares.tolist() == [0.25] * 4
    prior.update(torch.eye(4)[[0] * 8 + [1] * 4])
    assert prior.shares.tolist() == pytest.approx([8.5 / 14, 4.5 / 14, 0.5 / 14, 0.5 / 14])
    assert float(prior.from_uniform) == pytest.approx(8.5 / 14 + 4.5 / 14 - 0.5)
    assert set(prior.state_dict()) == {"shares"}


def test_predictions_are_believed_as_far_as_neighbours_agree_however_sure_they_are():
    """12 images of two of three classes: 0.4 of the labels are wrong by the predictions, 3 of 24 by the neighbours."""
    labels = torch.tensor([0] * 8 + [1] * 4)
    unsure = torch.full((12, 3), 0.2).scatter(1, labels[:, None], 0.6)
    neighbours = torch.tensor([[1, 2]] * 8 + [[8, 9]] * 4)
    neighbours[0, 0], neighbours[11] = 8, torch.tensor([0, 1])
    predicted = [8.5 / 13.5, 4.5 / 13.5, 0.5 / 13.5]
    cases = ((unsure, None, 0.4), (unsure, neighbours, 3 / 24), (torch.eye(3)[labels], neighbours, 3 / 24))
    for rows, known, errors in cases:
        prior = EstimatedPrior(3)
        prior.update(rows, known)
        apart = total_variation(predicted, [1 / 3] * 3)
        assert total_variation(prior.shares.tolist(), predicted) == pytest.approx(min(errors, apart), abs=1e-6)


def test_images_that_training_has_not_reached_do_not_count():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(12, 3, generator=generator).mul(3).softmax(1)
    near = torch.randint(12, (12, 4), generator=generator)
    uniform = torch.full((5, 3), 1 / 3)
    some = torch.cat([near, near[:, :2] + 12], dim=1).where(torch.arange(6) < 4, torch.randint(12, 17, (12, 6)))
    mixed, expected = EstimatedPrior(3), EstimatedPrior(3)
    mixed.update(torch.cat([rows, uniform]), torch.cat([some, torch.randint(17, (5, 6))]))
    expected.update(rows, near)
    assert torch.allclose(mixed.shares, expected.shares, atol=1e-6)
    mixed.update(uniform, torch.randint(5, (5, 4)))
    assert torch.allclose(mixed.shares, expected.shares, atol=1e-6)  # as it was
