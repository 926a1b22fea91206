"""The cost of optimal transport, against all assignments of a small batch."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F

from mutualign.nn.losses import transport_cost


def test_the_cost_is_that_of_the_best_of_all_assignments():
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(2, 4, 3, generator=generator)
    labels, logits = torch.tensor([0, 1, 2, 1]), torch.randn(4, 3, generator=generator)
    costs = [
        [
            0.3 * float((source[i] - target[j]).square().sum())
            + 0.7 * float(F.cross_entropy(logits[j : j + 1], labels[i : i + 1]))
            for j in range(4)
        ]
        for i in range(4)
    ]
    expected = min(sum(costs[i][j] for i, j in enumerate(order)) / 4 for order in permutations(range(4)))
    assert float(transport_cost(source, labels, target, logits, 0.3, 0.7)) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_pulls_matched_pairs_together():
    source, target = torch.tensor([[0.0], [10.0]]), torch.tensor([[11.0], [1.0]], requires_grad=True)
    transport_cost(source, torch.tensor([0, 1]), target, torch.zeros(2, 2), 1.0, 0.0).backward()
    assert target.grad.flatten().tolist() == pytest.approx([1.0, 1.0])  # 2 (f_t - f_s) / 2 of its own match
