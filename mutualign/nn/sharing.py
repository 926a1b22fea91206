"""A batch shared by processes: each takes some rows through the network, and all of them see what comes of all rows.

Only the network's work is shared. Batches, views, heads and losses are the same in every process, drawn from the same
seeds; so that a method's loss needs no word about processes, and N of them train as one does, up to the order in which
floats are summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class Share(NamedTuple):
    """The rows of a batch that this process takes."""

    start: int
    stop: int
    total: int

    @classmethod
    def of(cls, rank: int, total: int, processes: int) -> Share:
        """Rows in one piece, as many as in every other share or one more."""
        each, more = divmod(total, processes)
        start = rank * each + min(rank, more)
        return cls(start, start + each + (rank < more), total)


@dataclass
class _State:
    """Of this process; a ContextVar would do, but torch.compile cannot trace one."""

    share: Share | None = None  # what a network is working on
    alone: bool = False


_state = _State()


def current_share() -> Share | None:
    """What the network is working on, for layers that must know of the whole batch; None of a batch that is whole."""
    return _state.share


@contextmanager
def alone() -> Iterator[None]:
    """Within, nothing is shared: for what one process does while others wait."""
    before, _state.alone = _state.alone, True
    try:
        yield
    finally:
        _state.alone = before


def shared(network: nn.Module, images: Float[Tensor, "n ..."]) -> Float[Tensor, "n features"]:
    """`network(images)`, computed by all processes together, each of which must call this; in one, just that.

    The gradient is that of one process, if afterwards parameters' gradients are averaged over the processes (as DDP
    does) and all processes compute the same loss.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1 or _state.alone:
        return network(images)  # type: ignore[no-any-return]
    share = Share.of(dist.get_rank(), len(images), dist.get_world_size())
    _state.share = share
    try:
        features = network(images[share.start : share.stop])
    finally:
        _state.share = None
    return _Gather.apply(features.float(), share).to(features.dtype)  # type: ignore[no-any-return, no-untyped-call]


@contextmanager
def own_randomness() -> Iterator[None]:
    """For layers that draw for their share only: from a generator apart, as all processes' own must stay alike."""
    share = current_share()
    if share is None:
        yield
        return
    key = int(torch.randint(2**62, ()))
    with torch.random.fork_rng():
        torch.manual_seed(key + share.start)
        yield


class _Gather(torch.autograd.Function):
    """The rows of every share, in order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, share: Share) -> Tensor:
        ctx.share = share
        processes = dist.get_world_size()
        shares = [Share.of(rank, share.total, processes) for rank in range(processes)]
        most = shares[0].stop
        padded = rows.new_zeros(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(gathered, padded)
        return torch.cat([part[: one.stop - one.start] for part, one in zip(gathered, shares, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # The loss is the same everywhere, and so is its gradient; averaging takes the factor away again.
        return gradients[0][ctx.share.start : ctx.share.stop] * dist.get_world_size(), None


class _Sum(torch.autograd.Function):
    """The sum over all processes, and the same of the gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sum of what each process holds, with a gradient."""
    return _Sum.apply(values)  # type: ignore[no-any-return, no-untyped-call]
