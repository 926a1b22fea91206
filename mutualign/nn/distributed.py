"""A batch shared by several processes: each computes the features of some rows, and all get the features of all rows.

Batches, augmentation, heads and losses are the same in every process, from the same seeds. So losses need no code for
several processes, and N processes train as one does, up to the order of float sums.

What an update costs, compared with one process:

- The backbone works on 1/N of the rows. Everything else (augmentation, heads, critics, losses, teachers' heads, the
  optimiser) is computed N times, so only a large backbone gains much.
- Two all-reduces of the features, float32 [n, feature_dim]: one forward, one backward; one more for a teacher.
- Two small all-reduces forward and two backward per batch-norm layer (nn/layers.py), which wait for each other.
- One all-reduce of the gradients, after the backward pass. DistributedDataParallel would overlap the two, but expects
  one forward and one backward pass per step over all parameters, which methods with several players do not have.

No message waits for a GPU: `any_process` exchanges its flag between CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.nn.randomness import CPU, separate_draws


class Share(NamedTuple):
    """The rows of a batch that this process computes."""

    start: int
    stop: int
    total: int

    @classmethod
    def of(cls, rank: int, total: int, processes: int) -> Share:
        """Return consecutive rows; shares differ by one row at most."""
        each, more = divmod(total, processes)
        start = rank * each + min(rank, more)
        return cls(start, start + each + (rank < more), total)


@dataclass
class _State:
    """State of this process; torch.compile cannot trace a ContextVar."""

    share: Share | None = None  # of the network that is computing
    alone: bool = False
    cpu_group: tuple[Any, Any] | None = None  # the default process group, and one for CPU tensors


_state = _State()


def current_share() -> Share | None:
    """Return the share of the network that is computing; None if the batch is not shared."""
    return _state.share


def draw_rows(n: int, draw: Callable[[int], Tensor]) -> Tensor:
    """Return `draw(n)`, n random rows; of a shared batch the share's of those that all processes draw for the whole."""
    share = current_share()
    return draw(n) if share is None else draw(share.total)[share.start : share.stop]


@contextmanager
def alone() -> Iterator[None]:
    """Context in which nothing is shared: for work of one process while the others wait."""
    before, _state.alone = _state.alone, True
    try:
        yield
    finally:
        _state.alone = before


def processes() -> int:
    """Return the number of processes that share batches; 1 within `alone`."""
    single = _state.alone or not dist.is_available() or not dist.is_initialized()
    return 1 if single else dist.get_world_size()


def shared(network: nn.Module, images: Float[Tensor, "n ..."]) -> Float[Tensor, "n features"]:
    """Return `network(images)`, computed by all processes together; every process must make this call.

    Gradients are those of a single process if all processes compute the same loss and then average the gradients of
    the parameters (`average_gradients`): the backward pass of the sum over processes multiplies by their number.
    """
    count = processes()
    if count == 1:
        return network(images)  # type: ignore[no-any-return]
    share = Share.of(dist.get_rank(), len(images), count)
    _state.share = share
    try:
        rows = network(images[share.start : share.stop])
    finally:
        _state.share = None
    before, after = (rows.new_zeros(n, *rows.shape[1:]) for n in (share.start, share.total - share.stop))
    return sum_over_processes(torch.cat([before, rows, after]).float()).to(rows.dtype)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of some parameters over processes, in one message."""
    if processes() == 1:
        return
    gradients = [weight.grad for weight in parameters if weight.grad is not None]
    flat = torch._utils._flatten_dense_tensors(gradients)  # type: ignore[no-untyped-call]
    dist.all_reduce(flat)
    flat /= processes()
    averaged = torch._utils._unflatten_dense_tensors(flat, gradients)  # type: ignore[no-untyped-call]
    torch._foreach_copy_(gradients, averaged)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; every process must make this call."""
    if processes() == 1:
        return flag
    votes = torch.tensor(int(flag))
    dist.all_reduce(votes, group=_cpu_group())
    return bool(votes)


def _cpu_group() -> Any:
    """Return a process group for CPU tensors, made on first use."""
    world = dist.group.WORLD
    if dist.get_backend() == "gloo":
        return world
    if _state.cpu_group is None or _state.cpu_group[0] is not world:
        _state.cpu_group = (world, dist.new_group(backend="gloo"))
    return _state.cpu_group[1]


@contextmanager
def own_randomness(device: torch.device = CPU) -> Iterator[None]:
    """Context in which a layer draws for its own share only, from a separate generator.

    The global generator advances equally in all processes. `device` is where the layer computes.
    """
    share = current_share()
    if share is None:
        yield
        return
    key = int(torch.randint(2**62, ()))
    with separate_draws(device, key + share.start):
        yield


class _Sum(torch.autograd.Function):
    """The sum over all processes, and the sum of the gradients in the backward pass."""

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
    """Return the sum of the values of all processes, differentiable."""
    return _Sum.apply(values)  # type: ignore[no-any-return, no-untyped-call]
