"""The machine and the software: precision, memory settings, and descriptions to publish with every number."""

from __future__ import annotations

import ctypes
import functools
import math
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import torch

from mutualign.training.fabric import Fabric

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_WORTH_IT = 1.2  # how much faster products in bf16 must be, because a step also rounds to bf16 and back


def bf16_is_faster(device: torch.device) -> bool:
    """Whether a device multiplies matrices faster in bf16 than in float32.

    On a CPU this is measured, once in a process and in about 20 ms: some have instructions for bf16 and take twice as
    long with them as in float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_speedup() >= _WORTH_IT


@functools.cache
def _cpu_speedup(side: int = 256, rounds: int = 5) -> float:
    """How many times faster a CPU multiplies matrices in bf16 than in float32: the best of some rounds of each.

    One thread measures, in turns, so that other work on the machine slows both alike.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
        for dtype in list(seconds) * rounds:
            matrix = torch.ones(side, side, dtype=dtype)
            start = time.perf_counter()
            matrix @ matrix
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step.

    By default, each large tensor is mapped and unmapped again; the page faults took a quarter of the published
    network's training step on CPU. With other C libraries this does nothing.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the most that glibc takes
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def describe_hardware(fabric: Fabric) -> str:
    """Describe processor, threads, precision and processes in one line."""
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
    """Return the versions of Python, of mutualign and its commit, and of the libraries that affect results."""
    found = {"python": platform.python_version(), "commit": _commit()}
    return found | {name: metadata.version(name) for name in ("mutualign", "torch", "numpy", "lightning-fabric")}


def _commit() -> str:
    """Return the commit of the package's git checkout, with "+changed" if the package differs; else "none"."""
    package = Path(__file__).parents[1]
    git = ["git", "-C", str(package)]
    try:
        # A package that is installed inside another project's checkout is not tracked there.
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=True)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return commit + ("+changed" if changed else "")
