"""The engine of one machine: processes side by side, each with its share of the threads and of the GPUs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.backend import get_context

from mutualign.runs.engines.base import Engine, NoOptions, register_engine
from mutualign.runs.work import Function, one_at_a_time


@register_engine("local")
class Local(Engine):
    """Processes on this machine.

    Each worker is a pool of one process (joblib's loky), driven by a thread. A worker that is killed takes its own work
    with it and no other: a shared pool would end all of its processes.
    """

    tells_beginning = True

    def __init__(self, jobs: int | None, options: NoOptions) -> None:
        import torch

        self.at_once = jobs or os.cpu_count() or 1
        self.threads = max(1, torch.get_num_threads() // self.at_once)
        self._gpus = visible_gpus(torch.cuda.device_count())
        self._drivers = ThreadPoolExecutor(self.at_once)
        self._workers: dict[int, ProcessPoolExecutor] = {}  # by thread
        self._numbers = defaultdict[int, int](count().__next__)  # by thread: a replacement has the lost worker's GPU

    def submit(self, function: Function, text: str) -> Future[str]:
        return self._drivers.submit(self._drive, function, text)

    def close(self) -> None:
        for worker in list(self._workers.values()):
            worker.shutdown(kill_workers=True)
        self._drivers.shutdown(cancel_futures=True)

    def _drive(self, function: Function, text: str) -> str:
        """Have one piece of work done by this thread's worker."""
        driver = threading.get_ident()
        if driver not in self._workers:
            self._workers[driver] = self._start_worker(self._numbers[driver])
        try:
            outcome: str = self._workers[driver].submit(function, text).result()
        except BrokenProcessPool:
            self._workers.pop(driver).shutdown(kill_workers=True)
            raise
        return outcome

    def _start_worker(self, number: int) -> ProcessPoolExecutor:
        environment = dict(os.environ)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[number % len(self._gpus)]
        return ProcessPoolExecutor(1, context=_context(), initializer=prepare_worker, initargs=(environment,))


def _context() -> Any:
    """How workers start. On Linux they are forked from a process that has imported everything and runs nothing.

    That takes milliseconds; elsewhere each worker imports torch, which takes seconds.
    """
    if sys.platform != "linux":
        return get_context("loky")
    context = get_context("forkserver")
    context.set_forkserver_preload(["mutualign.runs.jobs", "sklearn.linear_model"])
    return context


def prepare_worker(environment: dict[str, str]) -> None:
    """Give a worker its parent's environment of now, and leave signals to the parent while it has no work.

    Every process of a terminal gets Ctrl-C and the end of the terminal.
    """
    os.environ.clear()
    os.environ.update(environment)
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent has died, as soon as the work at hand has noticed that too, and has saved."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        with one_at_a_time:
            os._exit(1)


def visible_gpus(number: int) -> list[str]:
    """Return the GPUs that this process sees, as `CUDA_VISIBLE_DEVICES` names them."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:number] or [str(index) for index in range(number)]
