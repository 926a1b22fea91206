"""Several processes that train as one: their number and ranks, Fabric, and the error when one of them ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from mutualign.errors import MutualignError, first_line
from mutualign.io.plugins import resume_command
from mutualign.nn.distributed import any_process
from mutualign.training.connection import Meeting, connect
from mutualign.training.fabric import (
    ClusterEnvironment,
    DDPStrategy,
    Fabric,
    LightningEnvironment,
    MisconfigurationException,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from mutualign.training.hardware import bf16_is_faster
from mutualign.training.launching import local_processes


class Processes(NamedTuple):
    """The number of processes that train together, one per device."""

    devices: int = 1  # of each node
    nodes: int = 1

    @property
    def total(self) -> int:
        """Number of processes."""
        return self.devices * self.nodes

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints; known before the others are launched."""
        return self == ONE or self._rank(self._environment()) == 0

    @classmethod
    def started(cls) -> Processes:
        """Return the processes that torchrun has started, this one included; one without torchrun.

        Raises MutualignError if WORLD_SIZE and LOCAL_WORLD_SIZE are not numbers of processes.
        """
        if "LOCAL_WORLD_SIZE" not in os.environ:
            return cls()
        everywhere, here = (_number(name, 1, 10**9, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        return cls(here, everywhere // here)

    def check(self) -> None:
        """Check the environment variables that say which of the processes this is, and where the first one is.

        From now on, a process that was started by another one of this run ends if that one does. Raises MutualignError
        if a variable is missing or wrong.
        """
        local_processes.watch_launcher()
        if self == ONE:
            return
        if self._started_by_slurm:
            for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"):
                _number(name, 0, self.total - 1)
        else:
            if "LOCAL_WORLD_SIZE" in os.environ:
                _number("RANK", 0, self.total - 1)
            node = "GROUP_RANK" if "GROUP_RANK" in os.environ and "NODE_RANK" not in os.environ else "NODE_RANK"
            _number(node, 0, self.nodes - 1, None if self.nodes > 1 else "0")
            _number("LOCAL_RANK", 0, self.devices - 1, "0")
            if self.nodes > 1 and "MASTER_ADDR" not in os.environ:
                raise _wrong("MASTER_ADDR", "is not set", "the address of the computer with NODE_RANK 0")
            _number("MASTER_PORT", 1, 65535, None if self.nodes > 1 or "LOCAL_RANK" in os.environ else "1")

    def connect(self, fabric: Fabric, environment: ClusterEnvironment, should_stop: Callable[[], bool]) -> None:
        """Start the processes of this computer that nobody else starts, and wait until all are connected."""
        rank = self._rank(environment)
        meeting = Meeting(rank, self.total, environment.main_address, environment.main_port)
        if not environment.creates_processes_externally:
            os.environ |= {"MASTER_ADDR": meeting.address, "MASTER_PORT": str(meeting.port), "LOCAL_RANK": "0"}
            os.environ |= {"NODE_RANK": str(environment.node_rank()), "WORLD_SIZE": str(self.total)}
            local_processes.start(rank, self.devices)
        connect(meeting, fabric.strategy.root_device, should_stop)

    @property
    def _started_by_slurm(self) -> bool:
        """Whether srun has started all of them; in other programs of a Slurm job its variables mean nothing here."""
        return os.environ.get("SLURM_STEP_NUM_TASKS") == str(self.total) != "1"

    def _environment(self) -> ClusterEnvironment:
        """Return who has started this process. Fabric would take any Slurm or MPI job for several processes."""
        if "LOCAL_WORLD_SIZE" in os.environ and dist.is_torchelastic_launched():
            return TorchElasticEnvironment()
        return SLURMEnvironment() if self._started_by_slurm else LightningEnvironment()

    def _rank(self, environment: ClusterEnvironment) -> int:
        if isinstance(environment, LightningEnvironment):
            return environment.node_rank() * self.devices + environment.local_rank()
        return environment.global_rank()


ONE = Processes()


def _number(name: str, least: int, most: int, default: str | None = None) -> int:
    """Return the whole number in an environment variable."""
    text = os.environ.get(name, default)
    wanted = f"a whole number from {least} to {most}"
    if text is None:
        raise _wrong(name, "is not set", wanted)
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and least <= int(text) <= most):
        raise _wrong(name, f'is "{text[:40]}"', wanted)
    return int(text)


def _wrong(name: str, what: str, wanted: str) -> MutualignError:
    return MutualignError(
        f"the environment variable {name} {what}; several processes need {wanted}\n"
        "  hint:    correct it or unset it, start the command with torchrun or srun, or leave --devices and --nodes out"
    )


def make_fabric(
    precision: str,
    accelerator: str = "auto",
    processes: Processes = ONE,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fabric:
    """Choose devices and precision: `float32`, `bf16` (autocast), or `auto`, which is bf16 where it is faster.

    The accelerator `auto` is a GPU of CUDA (or ROCm) if there is one, else the CPU. Processes take bf16 if all would.

    Launches the other processes, if any: each runs this program from its start to this call. Raises MutualignError if
    the accelerator does not exist or has too few devices, or if the processes cannot connect; raises Stopped if
    `should_stop` says so before they have.
    """
    if accelerator == "auto":  # not mps: what it lacks differs between versions of torch, and none is tested
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"

    def build(bf16: bool) -> Fabric:
        settings: dict[str, Any] = {"accelerator": accelerator, "plugins": [environment]}
        settings["precision"] = "bf16-mixed" if bf16 else "32-true"
        if processes == ONE:
            return Fabric(devices=1, **settings)
        # Gradients are averaged by nn/distributed.py.
        strategy = DDPStrategy(broadcast_buffers=False)
        return Fabric(devices=processes.devices, num_nodes=processes.nodes, strategy=strategy, **settings)

    try:
        environment = processes._environment()
        one = Fabric(accelerator=accelerator, devices=1, plugins=[LightningEnvironment()])
        bf16 = precision == "bf16" or (precision == "auto" and bf16_is_faster(one.device))
        fabric = build(bf16)
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        asked = "" if processes == ONE else f" in {processes.devices} processes on each of {processes.nodes} node(s)"
        raise MutualignError(
            f'cannot train on accelerator "{accelerator}"{asked}: {error}\n'
            "  hint:    leave out --accelerator, --devices and --nodes, or choose devices that this machine has"
        ) from error
    if processes == ONE:
        return fabric
    processes.connect(fabric, environment, should_stop)
    if any_process(not bf16) and bf16:
        fabric = build(False)
    fabric.launch()
    return fabric


@contextmanager
def report_lost_processes(fabric: Fabric, path: Path) -> Iterator[None]:
    """Context that raises MutualignError if another process of the run ends within it."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise MutualignError(
                f"process {fabric.global_rank} of {fabric.world_size}: another process of this run has ended\n"
                f"  reason   {local_processes.lost() or first_line(error)}\n"
                f"  hint:    see the output of that process, then `{resume_command(path)}`"
            ) from error
        raise
