"""The machine and the software: precision, set-up for training, and the lines that go with every number."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import rank_zero_only

from mutualign.errors import MutualignError


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

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


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
def lost_processes_told(fabric: Fabric, path: Path) -> Iterator[None]:
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


def has_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 run in hardware there, not by emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the next step to reuse.

    By default every large tensor is mapped and unmapped anew; its page faults took a quarter of the published network's
    training step on CPU. Elsewhere than on glibc this does nothing.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the most that glibc takes
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def describe_hardware(fabric: Fabric) -> str:
    """Processor, cores, threads in use, precision: the line that goes with every number."""
    if fabric.device.type == "cuda":
        name = torch.cuda.get_device_name(fabric.device)
    else:
        name = f"{_cpu_name()}, {torch.get_num_threads()} thread(s)"
    precision = "bf16 autocast" if "bf16" in str(fabric._precision.precision) else "float32"
    several = f", {fabric.world_size} processes" if fabric.world_size > 1 else ""
    return f"{name}, {precision}{several}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python, of the libraries that decide numbers, of mutualign and, in a git checkout, its commit."""
    found = {"python": platform.python_version(), "commit": _commit()}
    return found | {name: metadata.version(name) for name in ("mutualign", "torch", "numpy", "lightning-fabric")}


def _commit() -> str:
    """The commit of the checkout that the package runs from, marked if the package is changed; `none` elsewhere."""
    package = Path(__file__).parents[1]
    git = ["git", "-C", str(package)]
    try:
        # A package that is installed inside somebody else's checkout is not tracked there.
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=True)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return commit + ("+changed" if changed else "")
