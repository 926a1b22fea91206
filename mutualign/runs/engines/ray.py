"""The engine of Ray: a cluster that exists already, or one that is started on this machine."""

from __future__ import annotations

import os
import socket
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from mutualign.errors import MutualignError
from mutualign.runs.engines.base import Engine, missing_package, register_engine
from mutualign.runs.work import Function


@dataclass(frozen=True)
class RayOptions:
    """Options of the engine ray."""

    address: str = ""  # of the cluster, or "auto"; "" starts one on this machine
    threads: int = 1  # of each piece of work, on a cluster that exists already; it asks for as many CPUs
    gpus: float = 0  # that each piece of work asks for; 0.5 lets two share one


@register_engine("ray", RayOptions)
class Ray(Engine):
    """A Ray cluster, by its address; without one, workers on this machine."""

    def __init__(self, jobs: int | None, options: RayOptions) -> None:
        try:
            import ray
        except ImportError as error:
            raise missing_package("ray", "ray") from error
        self.at_once, self.threads = jobs, options.threads
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if options.address:
            try:
                require_listener(options.address)
                ray.init(address=options.address, **quiet)
            except (OSError, ValueError) as error:  # a ConnectionError is an OSError
                raise MutualignError(
                    f"engine ray: no cluster at {options.address}: {error}\n"
                    "  hint:    give the address that `ray start --head` prints: --engine-options address=HOST:6379"
                ) from error
        else:
            import torch

            self.at_once = jobs or os.cpu_count() or 1
            self.threads = max(1, torch.get_num_threads() // self.at_once)
            # "local": RAY_ADDRESS, if it is set, names a cluster for others.
            ray.init("local", num_cpus=self.at_once * self.threads, include_dashboard=False, **quiet)
        self._ray, self._gpus = ray, options.gpus

    def submit(self, function: Function, text: str) -> Future[str]:
        # A lost worker is an error at once; `dispatch` decides whether its work is tried again.
        remote = self._ray.remote(function).options(num_cpus=self.threads, num_gpus=self._gpus, max_retries=0)
        future: Future[str] = remote.remote(text).future()
        return future

    def close(self) -> None:
        self._ray.shutdown()


def require_listener(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT: Ray itself would try for minutes. Other addresses pass."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()
