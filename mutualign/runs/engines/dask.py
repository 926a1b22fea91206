"""The engine of Dask: a cluster that exists already, or one that is started on this machine."""

from __future__ import annotations

import os
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from mutualign.errors import MutualignError
from mutualign.runs.engines.base import Engine, missing_package, register_engine
from mutualign.runs.work import Function


@dataclass(frozen=True)
class DaskOptions:
    """Options of the engine dask."""

    address: str = ""  # of the scheduler; "" starts a cluster on this machine
    threads: int = 1  # of each piece of work, on a cluster that exists already


@register_engine("dask", DaskOptions)
class Dask(Engine):
    """A Dask cluster, by the address of its scheduler; without one, workers on this machine.

    A worker with several threads does its work one after another: start workers with one thread each.
    """

    def __init__(self, jobs: int | None, options: DaskOptions) -> None:
        try:
            import dask
            import distributed
        except ImportError as error:
            raise missing_package("dask", "dask and distributed") from error
        library: Any = distributed  # its types are not complete
        self._open, self.threads = ExitStack(), options.threads
        self.at_once = jobs
        if not options.address:
            import torch

            self.at_once = jobs or os.cpu_count() or 1
            self.threads = max(1, torch.get_num_threads() // self.at_once)
            # A lost worker is an error at once; `dispatch` decides whether its work is tried again.
            self._open.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 0}))
            cluster = library.LocalCluster(self.at_once, threads_per_worker=1, memory_limit=0, dashboard_address=None)
            self._open.enter_context(cluster)
        try:
            client = library.Client(options.address or cluster, timeout=30)
        except (OSError, ValueError) as error:
            raise MutualignError(
                f"engine dask: no scheduler at {options.address}: {error}\n"
                "  hint:    give the address that `dask scheduler` prints: --engine-options address=tcp://HOST:8786"
            ) from error
        self._open.enter_context(client)
        self._executor = self._open.enter_context(client.get_executor(pure=False))

    def submit(self, function: Function, text: str) -> Future[str]:
        future: Future[str] = self._executor.submit(function, text)
        return future

    def close(self) -> None:
        self._open.close()
