"""`demo`: the command that shows finished runs side by side in a browser."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console


@dataclass(frozen=True)
class Demo:
    """Show finished runs side by side on a local web page: draw a digit, drop it on a photo, and compare.

    Only this computer can open it. Ctrl-C ends it.

    Example: mutualign demo runs/digits/source_only/seed-0 runs/digits/fast/seed-0
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Complete run folders, that take images of one size and have the same classes."""
    port: int = 0
    """Where to listen. Default: the first free port from 7860 on."""
    open: bool = True
    """Open the page in a browser, where there is a display."""

    def main(self, console: Console) -> None:
        from mutualign.demo.server import start

        with console.status("loading the systems"):
            blocks = start(self.runs, self.port, self.open and _has_display())
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # how a server is ended, so no failure
            signal.signal(number, lambda *_: ended.set())
        console.print(f"{blocks.local_url} (Ctrl-C ends it)", highlight=False, soft_wrap=True)
        ended.wait()
        blocks.close(verbose=False)


def _has_display() -> bool:
    """Whether a browser can open a window; in a terminal, a text browser would take the screen."""
    windows = sys.platform in {"darwin", "win32"}
    return windows or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
