"""The held-out split: the same rows as naive loops, for folders and for arrays."""

from __future__ import annotations

import math

import torch

from mutualign.data.split import hold_out
from mutualign.estimator.arrays import held_out
from mutualign.nn.randomness import generator

LABELS = torch.tensor([2, 0, 1, 1, 0, 3, 2, 0, 1, 0, 0, 1, 0, 2, 0, 0, 1, 0, 0, 0, 0])


def test_a_generator_for_each_class_keeps_its_rows_when_other_classes_go():
    def split(labels: torch.Tensor) -> torch.Tensor:
        return hold_out(labels, lambda count: max(1, round(count / 3)), lambda label: generator("class", label))

    chosen: set[int] = set()
    for label in range(4):
        rows = [row for row, one in enumerate(LABELS.tolist()) if one == label]
        order = torch.randperm(len(rows), generator=generator("class", label)).tolist()
        chosen |= {rows[place] for place in order[: max(1, round(len(rows) / 3))]}
    held = split(LABELS)
    assert set(held.nonzero().flatten().tolist()) == chosen
    without = LABELS != 1
    assert torch.equal(split(LABELS[without]), held[without])


def test_one_generator_for_all_classes_draws_in_the_order_of_the_labels():
    random, chosen = generator(5, "held out"), set()
    for label in range(4):
        rows = (label == LABELS).nonzero().flatten()
        order = rows[torch.randperm(len(rows), generator=random)].tolist()
        chosen |= set(order[: min(math.ceil(0.3 * len(rows)), len(rows) - 1)])
    assert set(held_out(LABELS, 0.3, 5).nonzero().flatten().tolist()) == chosen
