"""How the processes of a run connect: each one is waited for, and one that is lost on the way ends the others.

The first process serves a key-value store at MASTER_ADDR:MASTER_PORT (torchrun serves it itself). All others report
there again and again, so that the first can tell one that has not come yet from one that has ended. When all are
present, they form a process group. This happens in a thread, because torch's calls cannot be interrupted: the main
thread waits, ready to stop.
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from mutualign.errors import MutualignError, first_line
from mutualign.nn.distributed import any_process
from mutualign.training.keepalive import keep_connections_alive
from mutualign.training.launching import local_processes
from mutualign.training.loop import Stopped

NOTICE_SECONDS = 10.0  # until a message says who is waited for
ARRIVAL_SECONDS = 300.0  # for processes that others start: computers are often started one by one
SILENCE_SECONDS = 15.0  # until a process that has reported counts as lost
GROUP_SECONDS = {"gloo": 20.0}  # for the group, when all are present
OTHER_GROUP_SECONDS = 120.0  # other backends set up GPUs
NAME_SECONDS = 10.0  # for a name server to know the first process's computer
BEAT_SECONDS = 0.2
MESSAGE_TIMEOUT = timedelta(minutes=30)  # in training; the others wait while the first process evaluates


class Meeting(NamedTuple):
    """Who meets, and where."""

    rank: int
    size: int
    address: str
    port: int

    def error(self, what: str, reason: object, hint: str) -> MutualignError:
        """Return the error of this process."""
        return MutualignError(
            f"process {self.rank} of {self.size}: {what}\n  reason   {first_line(reason)}\n  hint:    {hint}"
        )

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


def connect(meeting: Meeting, device: torch.device, should_stop: Callable[[], bool]) -> None:
    """Form the process group of all processes of a run.

    Raises MutualignError if a process is lost or does not come, or if the address or port is wrong; raises Stopped if
    `should_stop` says so.
    """
    backend = dist.Backend.default_device_backend_map.get(device.type, "gloo")
    connecting = _Connecting(meeting, backend, device)
    started, noticed = time.monotonic(), False
    connecting.start()
    try:
        while connecting.is_alive():
            connecting.join(BEAT_SECONDS / 2)
            if should_stop():
                raise Stopped
            if lost := local_processes.lost(connecting=True):
                raise meeting.error("another process of this run has ended", lost, "see the output of that process")
            limit = GROUP_SECONDS.get(backend, OTHER_GROUP_SECONDS)
            if connecting.complete_since and time.monotonic() - connecting.complete_since > limit:
                reason = f"no {backend} group within {limit:g} seconds"
                raise meeting.error("the processes do not reach each other", reason, _HINT_NETWORK)
            if not noticed and connecting.is_alive() and time.monotonic() - started > NOTICE_SECONDS:
                noticed = True
                print(f"mutualign: process {meeting.rank} waits for {connecting.missing}", file=sys.stderr, flush=True)
    finally:
        connecting.leave()
    if connecting.error is not None:
        raise connecting.error
    if backend == "nccl":
        atexit.register(dist.destroy_process_group)


_HINT_NETWORK = "see the output of the other processes; let the computers reach each other on all ports"
_HINT_ADDRESS = (
    "set MASTER_ADDR and MASTER_PORT to the address of the computer with NODE_RANK 0 and a free port there,\n"
    "           alike on all computers, and start the command on each"
)


class _Connecting(threading.Thread):
    """The thread that connects."""

    def __init__(self, meeting: Meeting, backend: str, device: torch.device) -> None:
        super().__init__(daemon=True, name="mutualign-connect")
        self.error: BaseException | None = None
        self.complete_since: float | None = None  # when all had come
        self.missing = f"process 0 at {meeting}"
        self._meeting, self._backend, self._device = meeting, backend, device
        self._left = threading.Event()
        # Processes that this one watches are waited for without a limit.
        self._limit = float("inf") if len(local_processes.children) + 1 == meeting.size else ARRIVAL_SECONDS
        self._begun = time.monotonic()

    def leave(self) -> None:
        """Stop soon, unless a call of torch is under way; that one ends with the process."""
        self._left.set()
        self.join(1.0)

    def run(self) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            store = self._open_store()
            if store is not None and self._all_came(store):
                self.complete_since = time.monotonic()
                self._form_group(store)
                keep_connections_alive()
        except Exception as error:  # the main thread raises it
            self.error = error

    def _waited_too_long(self) -> bool:
        """Wait for a moment; whether that was the last one."""
        self._left.wait(BEAT_SECONDS)
        return time.monotonic() - self._begun > self._limit

    def _open_store(self) -> Store | None:
        """Serve the store, or wait for its server; None if that was given up."""
        rank, size, address, port = meeting = self._meeting
        of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        serves = rank == 0 and not of_agent
        if not serves and not self._server_answers():
            return None
        try:
            store = TCPStore(
                address, port, size, serves, timedelta(seconds=10), wait_for_workers=False, multi_tenant=True
            )
        except (RuntimeError, ValueError) as error:
            if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
                hint = "set MASTER_PORT to a free port; with --devices alone, leave it out and one is chosen"
                raise meeting.error(f"port {port} is in use by another program", error, hint) from error
            what = f"{meeting} is not an address of this computer" if serves else f"what answers at {meeting} is no run"
            raise meeting.error(what, error, _HINT_ADDRESS) from error
        return PrefixStore(f"mutualign/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)

    def _server_answers(self) -> bool:
        meeting = self._meeting
        while not self._left.is_set():
            try:
                with socket.create_connection((meeting.address, meeting.port), timeout=2):
                    return True
            except socket.gaierror as error:
                if time.monotonic() - self._begun > NAME_SECONDS:
                    raise meeting.error(f"no computer is named {meeting.address}", error, _HINT_ADDRESS) from error
                self._left.wait(BEAT_SECONDS)
            except OSError as error:
                if self._waited_too_long():
                    what = f"process 0 did not answer at {meeting} within {self._limit:g} seconds"
                    raise meeting.error(what, error, _HINT_ADDRESS) from error
        return False

    def _all_came(self, store: Store) -> bool:
        """Report, and wait until all have reported; False if that was given up.

        The first process decides: it reads all reports, and writes `complete` or `lost`.
        """
        meeting, beat = self._meeting, 0
        others = range(1, meeting.size)
        reports: dict[int, tuple[bytes, float]] = {}
        try:
            while not self._left.is_set():
                beat += 1
                if meeting.rank:
                    store.set(f"report/{meeting.rank}", str(beat))
                    if store.check(["complete"]):
                        return True
                    if store.check(["lost"]):
                        raise self._lost(store.get("lost").decode())
                else:
                    for rank in others:
                        self._read_report(store, rank, reports)
                    absent = [str(rank) for rank in others if rank not in reports]
                    if not absent:
                        store.set("complete", "")
                        return True
                    self.missing = f"process {', '.join(absent)} at {meeting}"
                if self._waited_too_long():
                    reason = f"{self.missing} did not come within {self._limit:g} seconds"
                    raise meeting.error("not all processes came", reason, _HINT_ADDRESS)
        except dist.DistError as error:
            raise self._lost("process 0 no longer answers") from error
        return False

    def _read_report(self, store: Store, rank: int, reports: dict[int, tuple[bytes, float]]) -> None:
        """Update the last report of a process and its time. Raises MutualignError, here and in all, if it is old."""
        now = time.monotonic()
        if not store.check([f"report/{rank}"]):
            return
        report = store.get(f"report/{rank}")
        last, since = reports.get(rank, (b"", now))
        if report != last:
            reports[rank] = report, now
        elif now - since > SILENCE_SECONDS:
            reason = f"process {rank} no longer answers"
            store.set("lost", reason)
            raise self._lost(reason)

    def _lost(self, reason: str) -> MutualignError:
        return self._meeting.error("another process of this run has ended", reason, "see the output of that process")

    def _form_group(self, store: Store) -> None:
        device = None if self._device.type == "cpu" else self._device
        try:
            dist.init_process_group(
                self._backend,
                timeout=MESSAGE_TIMEOUT,
                store=store,
                rank=self._meeting.rank,
                world_size=self._meeting.size,
                device_id=device,
            )
            any_process(False)  # opens the connections of CPU tensors, if they have their own
        except (RuntimeError, ValueError) as error:
            raise self._meeting.error("the processes do not reach each other", error, _HINT_NETWORK) from error
