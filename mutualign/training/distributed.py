"""Several processes that train as one: how they are launched, and what happens when one is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import rank_zero_only

from mutualign.errors import MutualignError
from mutualign.training.hardware import has_bf16


class Processes(NamedTuple):
    """How many processes train together: one a device."""

    devices: int = 1  # of each node
    nodes: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and shows; known before the others are launched."""
        return self == ONE or int(getattr(rank_zero_only, "rank", 0)) == 0

    @classmethod
    def started(cls) -> Processes:
        """Those that torchrun has started, of which this is one; else one."""
        everywhere, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        return cls(here, everywhere // here) if "LOCAL_WORLD_SIZE" in os.environ else cls()


ONE = Processes()


def make_fabric(precision: str, accelerator: str = "auto", processes: Processes = ONE) -> Fabric:
    """Devices and their precision: `float32`, `bf16` (autocast), or `auto` for bf16 where the hardware has it.

    Several processes are launched by this: they run this program from its start, to the same call. Raises
    MutualignError if there is no such accelerator, or not as many devices.
    """
    settings: dict[str, Any] = {"accelerator": accelerator}
    try:
        device = Fabric(devices=1, **settings).device
        bf16 = precision == "bf16" or (precision == "auto" and has_bf16(device))
        settings["precision"] = "bf16-mixed" if bf16 else "32-true"
        if processes == ONE:
            return Fabric(devices=1, **settings)
        # Nothing to broadcast: batch norm of nn/layers.py has the same statistics everywhere.
        strategy = DDPStrategy(broadcast_buffers=False)
        fabric = Fabric(devices=processes.devices, num_nodes=processes.nodes, strategy=strategy, **settings)
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        asked = "" if processes == ONE else f" in {processes.devices} processes on each of {processes.nodes} node(s)"
        raise MutualignError(
            f'cannot train on accelerator "{accelerator}"{asked}: {error}\n'
            "  do       see what is there, or leave --accelerator, --devices and --nodes out"
        ) from error
    fabric.launch()
    return fabric


@contextmanager
def report_lost_processes(fabric: Fabric, path: Path) -> Iterator[None]:
    """Around work in several processes. Raises MutualignError if another one has ended in its midst."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise MutualignError(
                f"process {fabric.global_rank} of {fabric.world_size}: another process of this run has ended\n"
                f"  told     {str(error).splitlines()[0]}\n"
                f"  do       see what that one said, if anything, then `mutualign run --resume {path}`"
            ) from error
        raise
