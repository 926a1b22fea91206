"""Several processes that train as one: launching them, and the error when one of them ends."""

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

from mutualign.errors import MutualignError, shell_command
from mutualign.training.hardware import has_bf16


class Processes(NamedTuple):
    """The number of processes that train together, one per device."""

    devices: int = 1  # of each node
    nodes: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints; known before the others are launched."""
        return self == ONE or int(getattr(rank_zero_only, "rank", 0)) == 0

    @classmethod
    def started(cls) -> Processes:
        """Return the processes that torchrun has started, this one included; one without torchrun."""
        everywhere, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        return cls(here, everywhere // here) if "LOCAL_WORLD_SIZE" in os.environ else cls()


ONE = Processes()


def make_fabric(precision: str, accelerator: str = "auto", processes: Processes = ONE) -> Fabric:
    """Choose devices and precision: `float32`, `bf16` (autocast), or `auto`, which is bf16 if the hardware has it.

    Launches the other processes, if any: each runs this program from its start to this call. Raises MutualignError if
    the accelerator does not exist or has too few devices.
    """
    settings: dict[str, Any] = {"accelerator": accelerator}
    try:
        device = Fabric(devices=1, **settings).device
        bf16 = precision == "bf16" or (precision == "auto" and has_bf16(device))
        settings["precision"] = "bf16-mixed" if bf16 else "32-true"
        if processes == ONE:
            return Fabric(devices=1, **settings)
        # The strategy only launches processes: gradients are averaged by nn/distributed.py.
        strategy = DDPStrategy(broadcast_buffers=False)
        fabric = Fabric(devices=processes.devices, num_nodes=processes.nodes, strategy=strategy, **settings)
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        asked = "" if processes == ONE else f" in {processes.devices} processes on each of {processes.nodes} node(s)"
        raise MutualignError(
            f'cannot train on accelerator "{accelerator}"{asked}: {error}\n'
            "  hint:    leave out --accelerator, --devices and --nodes, or choose devices that this machine has"
        ) from error
    fabric.launch()
    return fabric


@contextmanager
def report_lost_processes(fabric: Fabric, path: Path) -> Iterator[None]:
    """Context that raises MutualignError if another process of the run ends within it."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            resume = shell_command("mutualign", "run", "--resume", path)
            raise MutualignError(
                f"process {fabric.global_rank} of {fabric.world_size}: another process of this run has ended\n"
                f"  reason   {str(error).splitlines()[0]}\n"
                f"  hint:    see the output of that process, then `{resume}`"
            ) from error
        raise
