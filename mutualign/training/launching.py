"""The processes that one process starts on its computer: if one of them ends, so do the others."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from mutualign.io.plugins import resume_command

LAUNCHER = "MUTUALIGN_LAUNCHER"  # the process id of the launcher, in the environment of those that it starts
POLL_SECONDS = 0.5
GRACE_SECONDS = 5.0  # for the main thread to report a lost process with more detail than the watching thread can
EXIT_SECONDS = 2.0  # for the others to end, when the launcher does


class LocalProcesses:
    """The processes that this one has started, or the one that has started it."""

    def __init__(self) -> None:
        self.children: dict[int, subprocess.Popen[bytes]] = {}  # by rank
        self.launcher: int | None = None

    def start(self, rank: int, devices: int) -> None:
        """Start `devices` - 1 processes that run the command of this one, whose ranks follow its `rank`."""
        main = sys.modules["__main__"].__spec__
        program = ["-m", main.name] if main else [str(Path(sys.argv[0]).absolute())]
        for local_rank in range(1, devices):
            environment = os.environ | {"LOCAL_RANK": str(local_rank), LAUNCHER: str(os.getpid())}
            command = [sys.executable, *program, *sys.argv[1:]]
            self.children[rank + local_rank] = subprocess.Popen(command, env=environment)
        atexit.register(self.end)
        self._watch()

    def watch_launcher(self) -> None:
        """End this process soon after the one that started it; does nothing if no process of ours did."""
        launcher = os.environ.pop(LAUNCHER, "")
        if launcher.isdecimal() and sys.platform != "win32":
            self.launcher = int(launcher)
            self._watch()

    def lost(self, connecting: bool = False) -> str | None:
        """Return a sentence about a process that has ended, else None.

        A process that ended without an error is lost only while `connecting`.
        """
        for rank, child in self.children.items():
            status = child.poll()
            if status is not None and status < 0:
                return f"process {rank} was killed by {signal.Signals(-status).name}"
            if status or (status == 0 and connecting):
                return f"process {rank} ended with exit status {status}"
        if self.launcher is not None and os.getppid() != self.launcher:
            return "the process that started this one has ended"
        return None

    def end(self) -> None:
        """End all processes that this one has started."""
        deadline = time.monotonic() + EXIT_SECONDS
        for child in self.children.values():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _watch(self) -> None:
        threading.Thread(target=self._end_with_the_others, daemon=True, name="mutualign-watch").start()

    def _end_with_the_others(self) -> None:
        while not (reason := self.lost()):
            time.sleep(POLL_SECONDS)
        time.sleep(GRACE_SECONDS)
        print(
            f"mutualign: {reason}, so this one ends too\n"
            f"  hint:    see the output of the process that ended first, then `{resume_command('RUN')}`",
            file=sys.stderr,
            flush=True,
        )
        for child in self.children.values():
            child.kill()
        os._exit(2)  # the main thread may be waiting for a message that never comes


local_processes = LocalProcesses()
