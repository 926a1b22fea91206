"""The held-out split: which labelled images are not trained on, a number of each class, chosen at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from mutualign.errors import MutualignError
from mutualign.nn.randomness import generator

HELD_OUT = 0.1  # of each class of a user's source: what source accuracy is measured on without source test images


def hold_out(
    labels: Int64[Tensor, " n"], count: Callable[[int], int], random: Callable[[int], torch.Generator]
) -> Bool[Tensor, " n"]:
    """Mark the rows to hold out: of each class of `m` rows, `count(m)` rows chosen by `random(label)`.

    Classes are visited in ascending order. `random` may return a generator for each class, so that a class keeps its
    split when others come or go, or one generator for all.

    >>> labels = torch.tensor([0, 1, 0, 1, 1, 0, 2])
    >>> rows = hold_out(labels, lambda m: m // 2, lambda label: torch.Generator().manual_seed(label))
    >>> torch.bincount(labels[rows], minlength=3).tolist()
    [1, 1, 0]
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in torch.unique(labels).tolist():
        rows = (labels == label).nonzero().flatten()
        order = torch.randperm(len(rows), generator=random(label))
        chosen[rows[order[: count(len(rows))]]] = True
    return chosen


def hold_out_tenth(labels: Int64[Tensor, " n"], names: Sequence[str], where: Path) -> Bool[Tensor, " n"]:
    """Mark a tenth of each class, at least one row; each class, by its name, has its own order.

    Raises MutualignError, starting with `where` the source is, if nothing would be left of a class.
    """
    for label, count in enumerate(torch.bincount(labels, minlength=len(names)).tolist()):
        if count < 2:
            raise MutualignError(
                f'{where}: class "{names[label]}" has {count} example; it needs 2 or more, because some are held out\n'
                "  hint:    add examples of it, leave the class out, or give --source-test: then none are held out"
            )
    return hold_out(
        labels,
        lambda count: max(1, round(HELD_OUT * count)),
        lambda label: generator("own images", "held out", names[label]),
    )
