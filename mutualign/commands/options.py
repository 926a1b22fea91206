"""What several commands share: options, and the answer to Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import tyro

from mutualign.training.loop import Stopped

ALARMED = 3  # the exit status of --strict where an alarm was raised
DataOption = Path | None
SetOption = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")]


class StopSignal:
    """Ctrl-C and SIGTERM ask the training to stop after the step; the second one stops at once."""

    def __init__(self, first: bool = True) -> None:
        self.first = first  # of several processes, the first one tells how it ended
        self.received: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def __call__(self) -> bool:
        return self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number

    @contextmanager
    def leaving(self, command: str) -> Iterator[None]:
        """Around training: when it was stopped, say how to go on, and exit with 128 + the signal's number."""
        try:
            yield
        except Stopped:
            if not self.first:
                raise SystemExit(0) from None
            print(f"mutualign: stopped, and saved where it was; go on with: {command}", file=sys.stderr)
            raise SystemExit(128 + (self.received or signal.SIGINT)) from None
