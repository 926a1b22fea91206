"""Sharing a batch: whose rows are whose, and that layers draw for a share what they draw for the whole batch."""

from __future__ import annotations

import pytest
import torch

from mutualign.nn import distributed as sharing
from mutualign.nn.distributed import Share, alone, current_share, own_randomness, shared
from mutualign.nn.layers import Dropout


@pytest.fixture
def work_on(monkeypatch):
    """Pretend that a network is working on a share."""
    return lambda share: monkeypatch.setattr(sharing._state, "share", share)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 2, 7, 64])
def test_shares_are_all_rows_once_in_order_and_of_about_the_same_size(total, processes):
    shares = [Share.of(rank, total, processes) for rank in range(processes)]
    assert [row for share in shares for row in range(share.start, share.stop)] == list(range(total))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_a_single_process_does_all_of_it_and_knows_of_no_share():
    seen = []

    class Network(torch.nn.Module):
        def forward(self, images):
            seen.append((len(images), current_share()))
            return images.flatten(1)

    images = torch.rand(5, 3, 2, 2)
    assert torch.equal(shared(Network(), images), images.flatten(1))
    with alone():
        shared(Network(), images)
    assert seen == [(5, None), (5, None)]
    assert not sharing._state.alone


def test_dropout_of_the_shares_is_dropout_of_the_batch(work_on):
    values, dropout, found = torch.rand(7, 4, 3), Dropout(0.5), []
    torch.manual_seed(3)
    whole = dropout(values)
    after = torch.rand(2)
    for rank in range(3):
        share = Share.of(rank, 7, 3)
        work_on(share)
        torch.manual_seed(3)
        found.append(dropout(values[share.start : share.stop]))
        assert torch.equal(torch.rand(2), after)  # the generator is where it is after the whole batch
    assert torch.equal(torch.cat(found), whole)


def test_what_others_layers_draw_differs_by_share_and_leaves_the_generators_alike(work_on):
    drawn, after = [], []
    for rank in range(2):
        work_on(Share.of(rank, 8, 2))
        torch.manual_seed(5)
        with own_randomness():
            drawn.append(torch.rand(3))
            torch.rand(rank)  # one of them draws more
        after.append(torch.rand(3))
    assert not torch.equal(*drawn)
    assert torch.equal(*after)
    work_on(None)
    torch.manual_seed(5)
    with own_randomness():
        alone_ = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(alone_, torch.rand(3))
