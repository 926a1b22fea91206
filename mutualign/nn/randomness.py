"""Randomness as a function of a key such as (seed, stage, step), so that no generator's state is ever saved."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor

CPU = torch.device("cpu")
_drawing = SimpleNamespace(lock=threading.RLock())  # torch's global generators are those of all threads


def derive_seed(*key: int | str) -> int:
    """Return a 63-bit seed: a hash of the key, the same on every machine and in every process."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """Return a new CPU generator seeded by a key."""
    return torch.Generator().manual_seed(derive_seed(*key))


def seed_device(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of the device that is computed on.

    `torch.manual_seed` seeds those of all kinds of devices. Where a GPU is not in use it records a stack trace for
    later, which takes longer than a short step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@contextmanager
def separate_draws(device: torch.device = CPU, seed: int | None = None) -> Iterator[None]:
    """Context after which torch's global generators of the CPU and of a device are as before; seeded if asked.

    One thread at a time is in it, so that none takes the draws of another. `torch.random.fork_rng` alone would start
    every GPU of the machine, for work on the CPU too.
    """
    devices = [] if device.type == "cpu" else [device]
    with _drawing.lock, torch.random.fork_rng(devices, device_type=device.type):
        if seed is not None:
            seed_device(seed, device)
        yield


def _renew_lock() -> None:
    """Give a forked process, in which no other thread lives on, a lock that none of them holds."""
    _drawing.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@torch.library.custom_op("mutualign::random_bytes", mutates_args=(), schema="(int count, Device device) -> Tensor")
def random_bytes(count: int, device: torch.device) -> Tensor:
    """Return uniform uint8 values, eight per 64-bit draw; an operator, since torch.compile cannot trace `random_`."""
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=device)
    return words.random_(-(2**63), None).view(torch.uint8)[:count]


@random_bytes.register_fake
def _(count: int, device: torch.device) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=device)
