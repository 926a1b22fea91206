"""All randomness is a function of (seed, stage, step, rank): a key, hashed; no generator's state is ever saved."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed from the parts of a key, equal on every machine and in every process."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator that starts where the key says."""
    return torch.Generator().manual_seed(derive_seed(*key))
