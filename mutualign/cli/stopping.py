"""Signals that stop training: Ctrl-C, SIGTERM, a closed terminal, a scheduler's warning."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mutualign.cli.console import printable

AT_ONCE = (signal.SIGINT, signal.SIGTERM)  # sent again, they stop at once
# A closed terminal; Slurm's and others' warning before the time limit; the limit of CPU time. Not on every system.
OTHERS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGXCPU") if hasattr(signal, name))


class StopSignal:
    """Asks the training to stop after the current step when a signal arrives.

    A second SIGINT or SIGTERM stops at once. Outside `saving`, while nothing can be saved yet, the first one does.
    """

    def __init__(self, first: bool = True) -> None:
        self.first = first  # of several processes, the first one says how it ended
        self.received: int | None = None
        self._can_save = False
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        for number in (*AT_ONCE, *OTHERS):
            if number in AT_ONCE or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, self._receive)

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            self._leave_terminals()
        if not self._can_save or (self.received in AT_ONCE and number in AT_ONCE):
            raise SystemExit(128 + number)
        self.received = number

    def _leave_terminals(self) -> None:
        """Write nowhere from now on: a terminal that is gone raises errors."""
        for number in self._terminals:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)

    @contextmanager
    def saving(self, command: str) -> Iterator[None]:
        """Surround training. When it was stopped, print how to resume, and exit with 128 + the signal's number."""
        from mutualign.training.loop import Stopped

        self._can_save = True
        try:
            yield
        except Stopped:
            if not self.first:
                raise SystemExit(0) from None
            print(f"mutualign: stopped and saved; resume with: {printable(command)}", file=sys.stderr)
            raise SystemExit(128 + (self.received or signal.SIGINT)) from None
        finally:
            self._can_save = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Surround, within `saving`, what has nothing to save: a signal stops at once, also one that came before."""
        from mutualign.training.loop import Stopped

        self._can_save = False
        try:
            if self():
                raise Stopped
            yield
        finally:
            self._can_save = True
